"""PyTorch on the CPU; its fp32, eager, is the reference."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from artifact.precision import Precision
from runtimes import torch_int8
from runtimes.base import Availability, Batch, Lack
from runtimes.options import TORCH, TorchOptions
from runtimes.torch_model import TorchModel

NAME = "torch-cpu"


def probe() -> Availability:
    """PyTorch always runs on the CPU; compiling needs a C++ compiler besides, and int8 needs torchao."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # slow to import, and an eager model needs none of it
    from torch._inductor.exc import InvalidCxxCompiler

    lacks = torch_int8.lacks()
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        reason = " ".join(str(error).split())
        remedy = "install g++ (Debian, Ubuntu: apt-get install g++)"
        lacks = (*lacks, Lack(word="compile", reason=reason, remedy=remedy))
    return Availability(runtime=NAME, available=True, engine_version=str(torch.__version__), device="cpu", lacks=lacks)


class EngineRuntime(TorchModel):
    """A checkpoint in PyTorch on the CPU. int8 is made on entry, and the ranges of `int8-static` of `calibration`."""

    def __init__(
        self,
        model: Path,
        precision: Precision,
        threads: int,
        options: TorchOptions = TORCH,
        calibration: Sequence[Batch] = (),
    ) -> None:
        super().__init__(NAME, "cpu", model, precision, threads, options)
        self._calibration = calibration

    def _prepared(self, model: Any) -> Callable[..., Any]:
        if self._precision not in torch_int8.PRECISIONS:
            return super()._prepared(model)
        names, static = self._input_names, self._precision is Precision.INT8_STATIC
        with self._or_closed("quantise", "measure another precision"):
            graph = torch_int8.quantise(model, names, self._calibration, static=static)
        self._got_dtype = self._precision.value
        self._model = None if self._options.compile else graph
        if not self._options.compile:
            return torch_int8.answering(graph)
        with self._or_closed("compile", "leave +compile out"), self._cast():
            compiled = torch_int8.compile_ahead(graph, names)
        return torch_int8.answering(compiled)
