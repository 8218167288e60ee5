"""PyTorch on the CPU; its fp32, eager, is the reference."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from artifact.precision import Precision
from errors import UserError
from runtimes import torch_int8
from runtimes.base import LOGITS, SEEN, Availability, Batch, Head, Lack
from runtimes.options import TORCH, TorchOptions
from runtimes.torch_model import TorchModel

NAME = "torch-cpu"

COMPILERS = {"darwin": "clang++", "win32": "cl"}
REMEDIES = {
    "g++": "install g++ (Debian, Ubuntu: apt-get install g++)",
    "clang++": "install the command line tools (xcode-select --install)",
    "cl": "install the Build Tools for Visual Studio, and start from their prompt",
}


def probe() -> Availability:
    """PyTorch always runs on the CPU; compiling needs a C++ compiler besides, and int8 needs torchao."""
    lacks, compiler = torch_int8.lacks(), _compiler()
    if shutil.which(compiler) is None:
        reason, remedy = f"TorchInductor needs {compiler!r}, which is not there", REMEDIES.get(compiler, "unset CXX")
        lacks = (*lacks, Lack(word="compile", reason=reason, remedy=remedy))
    return Availability(runtime=NAME, available=True, engine_version=str(torch.__version__), device="cpu", lacks=lacks)


def _compiler() -> str:
    """What TorchInductor will call, as its `config.cpp.cxx` and `cpp_builder` say; to import them takes seconds."""
    return os.environ.get("CXX", COMPILERS.get(sys.platform, "g++"))


class EngineRuntime(TorchModel):
    """A checkpoint in PyTorch on the CPU. int8 is made on entry, and the ranges of `int8-static` of `calibration`."""

    def __init__(
        self,
        model: Path,
        precision: Precision,
        threads: int,
        options: TorchOptions = TORCH,
        calibration: Sequence[Batch] = (),
        *,
        head: Head = LOGITS,
    ) -> None:
        super().__init__(NAME, "cpu", model, precision, threads, options, head)
        self._calibration = calibration

    def _prepared(self, model: Any) -> Callable[..., Any]:
        if self._precision not in torch_int8.PRECISIONS:
            return super()._prepared(model)
        names, static = self._input_names, self._precision is Precision.INT8_STATIC
        if names == SEEN:
            self.__exit__(None, None, None)
            raise UserError("PyTorch's int8 is not made of models that see yet", "measure another precision")
        with self._or_closed("quantise", "measure another precision"):
            graph = torch_int8.quantise(model, names, self._calibration, static=static)
        self._got_dtype = self._precision.value
        self._model = None if self._options.compile else graph
        if not self._options.compile:
            return torch_int8.by_name(graph)
        with self._or_closed("compile", "leave +compile out"), self._cast():
            compiled = torch_int8.compile_ahead(graph, names)
        return torch_int8.by_name(compiled)
