"""PyTorch on an NVIDIA GPU."""

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.precision import Precision
from errors import UserError
from runtimes.base import INDEX, LOGITS, PIXELS, Availability, Batch, Head, Outputs, check_batch, check_indices
from runtimes.options import TORCH_CUDA, TorchCudaOptions
from runtimes.torch_model import TorchModel, about, to_device, to_host

NAME, DEVICE = "torch-cuda", "cuda:0"
RECORDED_AFTER = 3
"""Runs of a shape after which its CUDA graph is known to work: TorchInductor warms up, records, replays."""


def probe() -> Availability:
    """Whether PyTorch sees a GPU, and if not, why."""
    version = str(torch.__version__)
    if torch.version.cuda is None:
        reason, remedy = f"this torch {version} was built without CUDA", "install a CUDA build of torch"
    elif not torch.cuda.is_available():
        reason, remedy = f"torch {version} finds no CUDA GPU", "check the driver with nvidia-smi"
    else:
        name = torch.cuda.get_device_name(0)
        return Availability(runtime=NAME, available=True, engine_version=version, device=name)
    return Availability(runtime=NAME, available=False, engine_version=version, reason=reason, remedy=remedy)


def ready(precision: Precision) -> None:
    """Let the GPU multiply in TF32 where that was asked for, and nowhere else, and count its memory from here on.

    Raises `UserError` where there is none.
    """
    probe().require()
    tf32 = precision is Precision.TF32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.cuda.reset_peak_memory_stats()


class EngineRuntime(TorchModel):
    """A checkpoint in PyTorch on the first GPU. fp32 computes in fp32; only `tf32` lets it use TF32.

    CUDA graphs are TorchInductor's: recorded per shape, replayed into memory that the next run overwrites. So one
    caller computes at a time with them; a graph that cannot be recorded is an error.
    """

    def __init__(
        self,
        model: Path,
        precision: Precision,
        threads: int,
        options: TorchCudaOptions = TORCH_CUDA,
        *,
        head: Head = LOGITS,
    ) -> None:
        super().__init__(NAME, DEVICE, model, precision, threads, options, head)
        if options.cuda_graphs and not options.compile:
            raise UserError(
                f"{NAME} with +cuda-graphs has no compiled graph to record",
                "write +compile+cuda-graphs, or neither",
            )
        self._graphs, self._pinned = options.cuda_graphs, options.pinned
        self._turn = threading.Lock() if options.cuda_graphs else contextlib.nullcontext()
        self._entry_runs = RECORDED_AFTER if options.cuda_graphs else 1
        self._idle: queue.SimpleQueue[Staging] = queue.SimpleQueue()
        self._rows: dict[str, int] = {}

    def __enter__(self) -> Self:
        ready(self._precision)
        super().__enter__()
        self._rows = table_rows(self.model)
        return self

    def run(self, batch: Batch) -> Outputs:
        """Host to host; returns when the result is in an array of the caller's."""
        call = self.call
        self._check(batch)
        with about(batch), self._turn:
            if not self._pinned:
                return self._named(to_host(self._answer(call, to_device(batch, self._device))))
            try:
                staging = self._idle.get_nowait()
            except queue.Empty:
                staging = Staging(self._device)
            answer = staging.to_host(self._answer(call, staging.to_device(batch)))
        self._idle.put(staging)  # not after an error: a copy may still be under way
        return self._named(answer)

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        """Waits for the work of its own thread's stream, as `run` does."""
        call = self.call
        self._check(batch)
        with about(batch):
            tensors = to_device(batch, self._device)

        def compute() -> None:
            with about(batch), self._turn:
                self._answer(call, tensors)
                finish(self._device)

        return compute

    def _check(self, batch: Batch) -> None:
        """An index that a table does not have must not reach the GPU: the process could not use it any more."""
        check_batch(batch, self._input_names)
        check_indices(batch, self._rows, "PyTorch")

    def _inductor_options(self) -> dict[str, bool]:
        recorded = {"triton.cudagraphs": True, "triton.cudagraph_or_error": True}
        return super()._inductor_options() | (recorded if self._graphs else {})

    def _answer(self, call: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self._graphs:
            mark: Any = torch.compiler.cudagraph_mark_step_begin
            mark()  # the outputs of the run before may be overwritten now
        return super()._answer(call, tensors)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._idle = queue.SimpleQueue()
        super().__exit__(kind, error, trace)


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Page-locked memory on the host, which the device can copy from and to by itself."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def finish(device: torch.device) -> None:
    """Wait until the device has done what this thread's stream was given so far, by whichever thread."""
    done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    done.record(torch.cuda.current_stream(device))
    done.synchronize()


class Staging:
    """Buffers on the host through which one caller at a time copies to the device and back.

    They grow with the largest batch and are used again. Only after `to_host`, which waits for the device, may the next
    batch be put into them: copies are under way until then. `allocate` and `wait` stand in for a GPU in tests.
    """

    def __init__(
        self,
        device: torch.device,
        allocate: Callable[[tuple[int, ...], torch.dtype], torch.Tensor] = pinned,
        wait: Callable[[torch.device], None] = finish,
    ) -> None:
        self._device, self._allocate, self._wait = device, allocate, wait
        self._buffers: dict[str, torch.Tensor] = {}

    def to_device(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Start to copy the inputs to the device; what is computed with them on this stream waits for the copies."""
        tensors = {}
        for name, array in batch.items():
            staged = self._buffer(name, array.shape, torch.int64 if array.dtype == INDEX else torch.float32)
            staged.numpy()[...] = array
            tensors[name] = staged.to(self._device, non_blocking=True)
        return tensors

    def to_host(self, output: torch.Tensor) -> NDArray[np.float32]:
        """Copy an output to the host, wait for it, and return it as a float32 array of the caller's."""
        staged = self._buffer("", tuple(output.shape), torch.float32)
        staged.copy_(output.float(), non_blocking=True)  # the device converts: torch would, on the host, too early
        self._wait(self._device)
        return np.array(staged.numpy())

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self._allocate((size,), dtype)
        return self._buffers[name][:size].view(shape)


def table_rows(model: Any) -> dict[str, int]:
    """For each input that looks up rows of a table: how many rows the table has."""
    if model.main_input_name == PIXELS:
        return {}
    rows = {"input_ids": model.get_input_embeddings().num_embeddings}
    kinds = getattr(model.config, "type_vocab_size", None)
    return {**rows, "token_type_ids": kinds} if kinds else rows
