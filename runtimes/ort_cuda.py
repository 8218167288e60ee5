"""ONNX Runtime on an NVIDIA GPU."""

from pathlib import Path
from typing import Self

import msgspec
import onnxruntime

from artifact.precision import Precision
from artifact.session import SessionConfig
from errors import UserError
from runtimes.base import Availability
from runtimes.options import ORT_CUDA
from runtimes.ort_model import OrtModel, probe_provider

NAME, PROVIDER = "ort-cuda", "CUDAExecutionProvider"


def probe() -> Availability:
    """Whether this build of ONNX Runtime has CUDA, and NVML (where it is installed) finds a GPU."""
    found = probe_provider(NAME, PROVIDER, "cuda:0")
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


class EngineRuntime(OrtModel):
    """An ONNX graph on ONNX Runtime's CUDA provider.

    Nodes that only compute shapes may be placed on the host (`info.nodes_by_provider` counts them); a session without a
    single node on CUDA is an error.
    """

    def __init__(self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_CUDA) -> None:
        super().__init__(NAME, PROVIDER, "cuda:0", model, precision, threads, options)

    def __enter__(self) -> Self:
        available = probe()
        if not available.available:
            raise UserError(available.reason or f"{NAME} cannot run here", available.remedy or "")
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        super().__enter__()
        placed = self.nodes_by_provider()
        if not placed.get(PROVIDER):
            self.__exit__(None, None, None)
            raise UserError(f"onnxruntime placed no node on {PROVIDER} (placement: {placed})", "see: steelyard doctor")
        return self
