"""What the ONNX Runtime runtimes on an NVIDIA GPU share: a session that really is there, and its own clock."""

from collections.abc import Callable
from typing import Any, Self

import msgspec
import numpy as np
import onnxruntime

from errors import UserError
from runtimes.base import Availability, Batch, check_batch, check_indices
from runtimes.ort_model import OrtModel, about, probe_provider
from runtimes.tables import table_rows

DEVICE, HERE, CUDA = "cuda:0", "cuda", "CUDAExecutionProvider"


def probe_gpu(runtime: str, provider: str) -> Availability:
    """Whether this build of ONNX Runtime has `provider`, and NVML (where it is installed) finds a GPU."""
    found = probe_provider(runtime, provider, DEVICE)
    if not found.available:
        return found
    try:
        import pynvml
    except ImportError:
        return found  # then only opening a session can tell
    try:
        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError as error:
        return msgspec.structs.replace(
            found, available=False, device=None, reason=f"NVML finds no GPU: {error}", remedy="check with nvidia-smi"
        )
    return msgspec.structs.replace(found, device=str(name))


def load_cuda_libraries() -> None:
    """Load CUDA and cuDNN from where Python packages put them, as far as this onnxruntime knows how."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def to_device(batch: Batch) -> dict[str, Any]:
    """The inputs as `OrtValue`s on the device; the copies are done when this returns."""
    return {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), HERE, 0)
        for name, array in batch.items()
    }


class OrtGpu(OrtModel):
    """An ONNX graph on a provider that computes on the first GPU.

    Nodes that only compute shapes may be placed on the host (`info.nodes_by_provider` counts them); a session without a
    single node on the provider is an error.
    """

    def __enter__(self) -> Self:
        load_cuda_libraries()
        super().__enter__()
        self._rows = table_rows(self._model)
        placed, provider = self.nodes_by_provider(), self._target.provider
        if not placed.get(provider):
            self.__exit__(None, None, None)
            raise UserError(f"onnxruntime placed no node on {provider} (placement: {placed})", "see: steelyard doctor")
        return self

    def _check(self, batch: Batch) -> None:
        """Its kernels answer a number that a table does not have with zeros (seen with 1.31), so it is refused here."""
        check_batch(batch, self._input_names)
        check_indices(batch, self._rows, "onnxruntime")

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        """Inputs and outputs are bound to the device by I/O binding."""
        session = self.session
        self._check(batch)
        binding = session.io_binding()
        with about(batch):
            for name, value in to_device(batch).items():
                binding.bind_ortvalue_input(name, value)
            for name in self._output_names:
                binding.bind_output(name, HERE, 0)

        def compute() -> None:
            with about(batch):
                session.run_with_iobinding(binding)
                binding.synchronize_outputs()

        return compute
