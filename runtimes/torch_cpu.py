"""PyTorch on the CPU; its fp32, eager, is the reference."""

from pathlib import Path

import torch

from artifact.precision import Precision
from runtimes.base import Availability
from runtimes.options import TORCH, TorchOptions
from runtimes.torch_model import TorchModel

NAME = "torch-cpu"


def probe() -> Availability:
    """PyTorch always runs on the CPU."""
    return Availability(runtime=NAME, available=True, engine_version=str(torch.__version__), device="cpu")


class EngineRuntime(TorchModel):
    """A checkpoint in PyTorch on the CPU."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: TorchOptions = TORCH) -> None:
        super().__init__(NAME, "cpu", model, precision, threads, options)
