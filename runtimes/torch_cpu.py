"""PyTorch on the CPU; its fp32, eager, is the reference."""

from pathlib import Path

import torch

from artifact.precision import Precision
from runtimes.base import Availability, Lack
from runtimes.options import TORCH, TorchOptions
from runtimes.torch_model import TorchModel

NAME = "torch-cpu"


def probe() -> Availability:
    """PyTorch always runs on the CPU; compiling needs a C++ compiler besides."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # slow to import, and an eager model needs none of it
    from torch._inductor.exc import InvalidCxxCompiler

    lacks: tuple[Lack, ...] = ()
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        reason = " ".join(str(error).split())
        lacks = (Lack(word="compile", reason=reason, remedy="install g++ (Debian, Ubuntu: apt-get install g++)"),)
    return Availability(runtime=NAME, available=True, engine_version=str(torch.__version__), device="cpu", lacks=lacks)


class EngineRuntime(TorchModel):
    """A checkpoint in PyTorch on the CPU."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: TorchOptions = TORCH) -> None:
        super().__init__(NAME, "cpu", model, precision, threads, options)
