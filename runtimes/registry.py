"""Every runtime there is: one line each. Engines are imported only when one is probed or opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Availability, Candidate, Runtime


class Source(Enum):
    """What a runtime loads."""

    CHECKPOINT = auto()
    ONNX = auto()


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a runtime lives and what it can do.

    `module` holds a class `EngineRuntime(model, precision, threads)` and a function `probe() -> Availability`;
    `package` is the import that `extra` installs. `portable` marks runtimes that an artifact
    can be packed for (CPU, without torch).
    """

    module: str
    package: str
    extra: str
    source: Source
    precisions: tuple[Precision, ...]
    portable: bool = False


REGISTRY: Mapping[str, Entry] = {
    "torch-cpu": Entry("runtimes.torch_cpu", "torch", "train", Source.CHECKPOINT, (Precision.FP32, Precision.BF16)),
    "torch-cuda": Entry(
        "runtimes.torch_cuda",
        "torch",
        "train",
        Source.CHECKPOINT,
        (Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16),
    ),
    "ort-cpu": Entry(
        "runtimes.ort_cpu",
        "onnxruntime",
        "cpu",
        Source.ONNX,
        (Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC, Precision.INT8_STATIC, Precision.INT4),
        portable=True,
    ),
    "ort-cuda": Entry(
        "runtimes.ort_cuda", "onnxruntime", "gpu", Source.ONNX, (Precision.FP32, Precision.FP16, Precision.BF16)
    ),
    "null": Entry("runtimes.null", "numpy", "cpu", Source.ONNX, ()),
}
"""The registered runtimes. `null` computes nothing and is no candidate: it measures the harness itself."""

REFERENCE = Candidate("torch-cpu", Precision.FP32)
"""PyTorch fp32 eager on the CPU: accuracy and parity are always against it."""


def entry(runtime: str) -> Entry:
    """The entry of a runtime; `UserError` lists the known ones."""
    if runtime not in REGISTRY:
        raise UserError(f"there is no runtime '{runtime}'", f"known are: {', '.join(REGISTRY)}")
    return REGISTRY[runtime]


def candidates(runtimes: tuple[str, ...] | None, precisions: tuple[Precision, ...] | None) -> tuple[Candidate, ...]:
    """Every pair of the asked runtimes and precisions that can exist (all of them by default).

    Raises `UserError` for an unknown runtime, and when no pair is left.
    """
    names = runtimes or tuple(REGISTRY)
    found = tuple(
        Candidate(name, precision)
        for name in names
        for precision in entry(name).precisions
        if precisions is None or precision in precisions
    )
    if not found:
        raise UserError(
            f"none of {', '.join(names)} runs at {', '.join(precisions or ())}",
            "; ".join(f"{name}: {', '.join(entry(name).precisions)}" for name in names),
        )
    return found


def probe(runtime: str) -> Availability:
    """Whether a runtime can work in this process, importing its engine if it is installed."""
    where = entry(runtime)
    if find_spec(where.package) is None:
        return Availability(
            runtime=runtime,
            available=False,
            reason=f"{where.package} is not installed",
            remedy=f"pip install 'steelyard[{where.extra}]'",
        )
    try:
        module = import_module(where.module)
    except (ImportError, OSError) as error:  # torch raises OSError for a shared library that is not there
        return Availability(
            runtime=runtime,
            available=False,
            reason=f"{where.package} is installed but cannot be loaded: {error}",
            remedy=f"pip install --force-reinstall 'steelyard[{where.extra}]'",
        )
    return cast(Availability, module.probe())


def open_runtime(candidate: Candidate, model: Path, threads: int) -> Runtime:
    """A runtime for `model`, a checkpoint folder or an ONNX file as its entry says, not yet loaded.

    Raises `UserError` when the engine is not installed.
    """
    where = entry(candidate.runtime)
    if find_spec(where.package) is None:
        raise UserError(
            f"{candidate.id} needs {where.package}, which is not installed", f"pip install 'steelyard[{where.extra}]'"
        )
    return cast(Runtime, import_module(where.module).EngineRuntime(model, candidate.precision, threads))
