"""PyTorch on an NVIDIA GPU."""

from pathlib import Path
from typing import Self

import torch

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Availability
from runtimes.options import TORCH, TorchOptions
from runtimes.torch_model import TorchModel

NAME = "torch-cuda"


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


class EngineRuntime(TorchModel):
    """A checkpoint in PyTorch on the first GPU. fp32 computes in fp32; only `tf32` lets it use TF32."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: TorchOptions = TORCH) -> None:
        super().__init__(NAME, "cuda:0", model, precision, threads, options)

    def __enter__(self) -> Self:
        available = probe()
        if not available.available:
            raise UserError(available.reason or f"{NAME} cannot run here", available.remedy or "")
        tf32 = self._precision is Precision.TF32
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.cuda.reset_peak_memory_stats()
        return super().__enter__()
