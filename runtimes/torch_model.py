"""What the PyTorch runtimes share: a checkpoint on one device, eager or compiled."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from artifact.precision import Precision
from artifact.task import Task
from errors import UserError
from runtimes.base import SEEN, About, Batch, Executed, Head, Outputs, RuntimeInfo, check_batch
from runtimes.options import TorchOptions, describe_options

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.TF32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
    Precision.INT8_DYNAMIC: torch.float32,
    Precision.INT8_STATIC: torch.float32,
}
"""How the weights are loaded; int8 is made of fp32."""

AUTOCAST = {
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
    Precision.INT8_DYNAMIC: torch.bfloat16,
    Precision.INT8_STATIC: torch.bfloat16,
}
"""What `+autocast` casts to; of an int8 model, whatever is not int8."""

NOT_OPEN = "the runtime is not open; use it in a with block"
REASON_CHARACTERS = 300
CONVERT = ("_to_copy", "copy_", "to")
COMPILED_SHAPES = ((3, 5), (1, 5))
"""Shapes (batch, sequence) that are compiled on entry. One graph serves every shape, but for a batch of one and for a
sequence of one: TorchDynamo gives sizes 0 and 1 graphs of their own."""


def to_device(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """The inputs on the device; a batch of contiguous arrays is not copied where that is the CPU."""
    on_host = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
    return on_host if device.type == "cpu" else {name: tensor.to(device) for name, tensor in on_host.items()}


def as_weights(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Mapping[str, torch.Tensor]:
    """The inputs as weights of a type take them: pixels as numbers of it, ids as they are."""
    if all(tensor.dtype in (torch.int64, dtype) for tensor in tensors.values()):
        return tensors
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def to_host(answer: torch.Tensor) -> NDArray[np.float32]:
    """An output as float32 on the host; copying waits for the device to finish."""
    return np.asarray(answer.float().cpu().numpy())


def peak_bytes(device: torch.device) -> int | None:
    """Bytes that torch's allocator reserved on a GPU at most, or `None` on the CPU."""
    return int(torch.cuda.max_memory_reserved()) if device.type == "cuda" else None


def forget(device: torch.device) -> None:
    """Let a GPU have memory back that nothing uses any more."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def about(batch: Batch) -> About:
    """Turn what torch raises of inputs into a `UserError`; an `AssertionError` is a guard of an exported graph."""
    return About(batch, "PyTorch", (RuntimeError, IndexError, AssertionError))


def compiled(model: Any, *, dynamic: bool, options: Mapping[str, bool]) -> Callable[..., Any]:
    """One graph of TorchInductor; what cannot be one raises when it is first called, as do more shapes than PyTorch
    compiles again for."""
    compiler: Any = torch.compile  # its overloads do not know isolate_recompiles
    call: Callable[..., Any] = compiler(
        model, fullgraph=True, dynamic=dynamic, isolate_recompiles=True, options=dict(options)
    )
    return call


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """The names of the operators that are dispatched, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class OneAnswer(torch.nn.Module):
    """A model of transformers as one function from inputs by name to one tensor, which `Head.one` makes of outputs."""

    def __init__(self, model: Any, head: Head) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.train(model.training)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        found = self.model(**inputs)
        if self.head.pooling is not None:
            from models.pooling import pool

            return pool(found.last_hidden_state, inputs["attention_mask"], self.head.pooling)
        tensors = [getattr(found, name) for name in self.head.outputs]
        return tensors[0] if len(tensors) == 1 else torch.stack(tensors, dim=-1)


class TorchModel:
    """A checkpoint at `precision`, in eval mode, with `threads` intra-op threads; a `Runtime`.

    Weights are cast once, or each operator casts its inputs under `autocast`. Compiled, the whole model is one graph of
    TorchInductor with its weights as constants ("freezing"), made on entry; what cannot be one graph raises, so nothing
    runs eagerly in its place.
    """

    def __init__(
        self,
        name: str,
        device: str,
        checkpoint: Path,
        precision: Precision,
        threads: int,
        options: TorchOptions,
        head: Head,
    ) -> None:
        self._name, self._device, self._options, self._head = name, torch.device(device), options, head
        self._checkpoint, self._precision, self._threads = checkpoint, precision, threads
        self._entry_runs = 1
        self._model: Any = None
        self._call: Callable[..., Any] | None = None
        if options.autocast and precision not in AUTOCAST:
            raise UserError(f"{precision} with +autocast has nothing to cast to", "leave +autocast out, or use bf16")

    @property
    def model(self) -> Any:
        """The open module; an int8 model that is compiled has none any more."""
        if self._model is None:
            raise RuntimeError(NOT_OPEN)
        return self._model

    @property
    def call(self) -> Callable[..., Any]:
        """What computes: the open module, or the graph compiled from it."""
        if self._call is None:
            raise RuntimeError(NOT_OPEN)
        return self._call

    @property
    def info(self) -> RuntimeInfo:
        if self._call is None:
            raise RuntimeError(NOT_OPEN)
        return RuntimeInfo(
            runtime=self._name,
            engine="torch",
            engine_version=str(torch.__version__),
            device=self._got_device,
            dtype=self._got_dtype,
            threads=torch.get_num_threads(),
            input_names=self._input_names,
            options={
                **describe_options(self._options),
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
            },
        )

    def __enter__(self) -> Self:
        """Load the weights, and compile if that was asked for.

        Raises `UserError` when the checkpoint is incomplete, when threads or cast did not take, and when the model
        cannot be compiled as one graph.
        """
        from models.checkpoint import load_model, model_input_names

        torch.set_num_threads(self._threads)
        if torch.get_num_threads() != self._threads:
            raise UserError(f"asked PyTorch for {self._threads} threads, got {torch.get_num_threads()}")
        self._dtype = dtype = torch.float32 if self._options.autocast else DTYPES[self._precision]
        task = Task.FEATURE_EXTRACTION if self._head.pooling else None  # of a classifier's class, for one
        model = load_model(self._checkpoint, task=task).to(device=self._device, dtype=dtype).eval()
        parameter = next(model.parameters())
        if parameter.dtype != dtype or parameter.device.type != self._device.type:
            raise UserError(f"asked for {dtype} on {self._device}, got {parameter.dtype} on {parameter.device}")
        self._input_names = model_input_names(self._checkpoint)
        self._got_device = str(parameter.device)
        self._got_dtype = self._precision.value if self._options.autocast else str(dtype).removeprefix("torch.")
        self._model = model
        self._call = self._prepared(OneAnswer(model, self._head))
        return self

    def _prepared(self, model: Any) -> Callable[..., Any]:
        """What computes, made of the loaded model."""
        return self._compiled(model) if self._options.compile else model

    def run(self, batch: Batch) -> Outputs:
        """Host to host: copying the result to the host waits for the device to finish."""
        call = self.call
        check_batch(batch, self._input_names)
        with about(batch):
            answer = self._answer(call, to_device(batch, self._device))
        return self._named(to_host(answer))

    def _answer(self, call: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute on the device; an accelerator may still be at work when this returns."""
        with torch.inference_mode(), self._cast():
            answer: torch.Tensor = call(**as_weights(tensors, self._dtype))
        return answer

    def _named(self, answer: NDArray[np.float32]) -> Outputs:
        """The outputs that an answer is made of."""
        names = self._head.outputs
        return {names[0]: answer} if len(names) == 1 else dict(zip(names, np.moveaxis(answer, -1, 0), strict=True))

    def _cast(self) -> contextlib.AbstractContextManager[object]:
        if not self._options.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=AUTOCAST[self._precision])

    def _inductor_options(self) -> dict[str, bool]:
        """What TorchInductor is told."""
        return {"freezing": True}

    def _compiled(self, model: Any) -> Callable[..., Any]:
        if self._input_names == SEEN:
            self.__exit__(None, None, None)
            raise UserError("models that see are not compiled yet", "leave +compile out")
        call = compiled(model, dynamic=True, options=self._inductor_options())
        with self._or_closed("compile", "leave +compile out; it needs a C++ compiler on the CPU and Triton on a GPU"):
            for shape in COMPILED_SHAPES:
                ones = {name: torch.ones(shape, dtype=torch.int64, device=self._device) for name in self._input_names}
                for _ in range(self._entry_runs):
                    self._answer(call, ones)
        return call

    @contextlib.contextmanager
    def _or_closed(self, what: str, hint: str) -> Iterator[None]:
        """Close the runtime when a stage of the compiler fails, and say it in one sentence."""
        try:
            yield
        except Exception as error:  # every stage has errors of its own
            self.__exit__(None, None, None)
            reason = " ".join(str(error).split())[:REASON_CHARACTERS]
            raise UserError(f"PyTorch cannot {what} this model: {type(error).__name__}: {reason}", hint) from error

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        """`None`: on a CPU the host is the device."""
        return None

    def executed(self, batch: Batch) -> Executed | None:
        """The ATen operators that an eager run dispatches, views left out; a compiled graph does not tell."""
        if self._options.compile:
            return None
        call = self.call
        check_batch(batch, self._input_names)
        tensors = to_device(batch, self._device)
        with about(batch), Operators() as seen:
            self._answer(call, tensors)
        inside = self._options.autocast  # autocast converts below where operators are seen
        return Executed.of(seen.names, None if inside else sum(name in CONVERT for name in seen.names))

    def peak_device_bytes(self) -> int | None:
        return peak_bytes(self._device)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model, self._call = None, None
        forget(self._device)
