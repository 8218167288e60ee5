"""What the PyTorch runtimes share: a checkpoint in eager mode on one device."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Batch, Outputs, RuntimeInfo, check_batch

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.TF32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


class TorchModel:
    """A checkpoint with its weights cast to `precision`, in eval mode, with `threads` intra-op threads; a `Runtime`."""

    def __init__(self, name: str, device: str, checkpoint: Path, precision: Precision, threads: int) -> None:
        self._name, self._device = name, torch.device(device)
        self._checkpoint, self._precision, self._threads = checkpoint, precision, threads
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The open module."""
        if self._model is None:
            raise RuntimeError("the runtime is not open; use it in a with block")
        return self._model

    @property
    def info(self) -> RuntimeInfo:
        parameter = next(self.model.parameters())
        return RuntimeInfo(
            runtime=self._name,
            engine="torch",
            engine_version=str(torch.__version__),
            device=str(parameter.device),
            dtype=str(parameter.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            input_names=self._input_names,
            options={"mode": "eager", "float32_matmul_precision": torch.get_float32_matmul_precision()},
        )

    def __enter__(self) -> Self:
        """Load the weights. Raises `UserError` when the checkpoint is incomplete, or threads or cast did not take."""
        from models.checkpoint import load_model, model_input_names

        torch.set_num_threads(self._threads)
        if torch.get_num_threads() != self._threads:
            raise UserError(f"asked PyTorch for {self._threads} threads, got {torch.get_num_threads()}")
        dtype = DTYPES[self._precision]
        model = load_model(self._checkpoint).to(device=self._device, dtype=dtype).eval()
        parameter = next(model.parameters())
        if parameter.dtype != dtype or parameter.device.type != self._device.type:
            raise UserError(f"asked for {dtype} on {self._device}, got {parameter.dtype} on {parameter.device}")
        self._input_names = model_input_names(self._checkpoint)
        self._model = model
        return self

    def run(self, batch: Batch) -> Outputs:
        """Host to host: copying the result to the host waits for the device to finish."""
        model = self.model
        check_batch(batch, self._input_names)
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for name, array in batch.items()
        }
        try:
            with torch.inference_mode():
                logits = model(**tensors).logits
        except (RuntimeError, IndexError) as error:
            shape = next(iter(batch.values())).shape
            raise UserError(f"PyTorch cannot run a batch of shape {shape}: {error}") from error
        return {"logits": np.asarray(logits.float().cpu().numpy(), dtype=np.float32)}

    def peak_device_bytes(self) -> int | None:
        """Bytes that torch's allocator reserved at most, or `None` on the CPU."""
        return int(torch.cuda.max_memory_reserved()) if self._device.type == "cuda" else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
