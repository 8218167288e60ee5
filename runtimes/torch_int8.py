"""PyTorch's own int8 for x86 CPUs: torchao's PT2E quantisation, run in the kernels of oneDNN once it is compiled."""

import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from artifact.precision import Precision
from runtimes.base import Batch, Lack

PRECISIONS = (Precision.INT8_DYNAMIC, Precision.INT8_STATIC)
X86 = ("x86_64", "AMD64")
EXAMPLE_SHAPE = (3, 5)
"""Shape (batch, sequence) of what the model is traced with: no size that a trace would take for fixed."""

Forward = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""Inputs by name, int64 of shape (batch, sequence), to an answer whose first axis is the batch."""


class _Answers(torch.nn.Module):
    """A model as one function of a mapping: a trace keeps its names, whatever their order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        return self.model(**batch)


def lacks() -> tuple[Lack, ...]:
    """What keeps PyTorch from int8 on this machine: another kind of CPU, or torchao is not installed."""
    if platform.machine() not in X86:
        reason, remedy = f"PyTorch's int8 kernels are for x86, this CPU is {platform.machine()}", "measure ort-cpu"
    elif find_spec("torchao") is None:
        reason, remedy = "torchao is not installed", "pip install 'steelyard[torchao]'"
    else:
        return ()
    return tuple(Lack(word=precision.value, reason=reason, remedy=remedy) for precision in PRECISIONS)


def quantise(model: Any, names: Sequence[str], calibration: Sequence[Batch], *, static: bool) -> Any:
    """A graph module, called as `Forward`, with the weights and the inputs of every linear layer rounded to int8.

    `static` takes the ranges of the inputs from the `calibration` batches; otherwise each run finds its own. Run
    operator by operator, the graph rounds as int8 does and computes in fp32.
    """
    from models.quiet import ON_IMPORT, hushed

    with hushed(*ON_IMPORT):
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_dynamic=not static))
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        traced = _exported(_Answers(model).eval(), names).module()
        traced.graph.eliminate_dead_code()  # the quantizer stumbles over layers that nothing reads, such as a pooler
        traced.recompile()
        observed = prepare_pt2e(traced, quantizer)
        if static:
            for batch in calibration:
                observed({name: torch.from_numpy(batch[name]) for name in names})
        else:
            observed(_example(names))  # what saw nothing cannot be converted, though its ranges are not used
        return convert_pt2e(observed)


def compile_ahead(graph: Any, names: Sequence[str]) -> Forward:
    """A graph of `quantise` as one library of int8 kernels for every shape, made by AOTInductor.

    `torch.compile` would do, but makes graphs of its own for many shapes, and int8 kernels only with its weights frozen
    by a setting of the whole process.
    """
    with (
        warnings.catch_warnings(action="ignore"),
        torch.no_grad(),
        tempfile.TemporaryDirectory(prefix="steelyard-") as folder,
    ):
        program = _exported(graph, names)
        longest = _longest(program)
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(Path(folder) / "model.pt2"),
            inductor_configs={"freezing": True},
        )
        compiled: Forward = torch._inductor.aoti_load_package(package)

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        length = batch[names[0]].shape[1]
        if longest is not None and length > longest:  # the library would read on behind its table of positions
            raise IndexError(f"{length} tokens, and the model takes at most {longest}")
        return compiled({name: batch[name] for name in names})  # it takes inputs by their place in the mapping

    return forward


def by_name(forward: Forward) -> Callable[..., torch.Tensor]:
    """Call it as a model is called, with its inputs by name."""

    def call(**batch: torch.Tensor) -> torch.Tensor:
        return forward(batch)

    return call


def _exported(module: Any, names: Sequence[str]) -> Any:
    dynamic = {name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in names}
    return torch.export.export(module, (_example(names),), dynamic_shapes=(dynamic,), strict=False)


def _longest(program: Any) -> int | None:
    """The longest sequence that a traced model has positions for, or `None` where nothing limits it."""
    for node in program.graph.nodes:
        shape: Any = getattr(node.meta.get("val"), "shape", ())
        if node.op == "placeholder" and len(shape) == len(EXAMPLE_SHAPE) and isinstance(shape[1], torch.SymInt):
            upper = program.range_constraints[shape[1].node.expr].upper
            return int(upper) if upper.is_finite and upper < sys.maxsize else None
    return None


def _example(names: Sequence[str]) -> Mapping[str, torch.Tensor]:
    return {name: torch.ones(EXAMPLE_SHAPE, dtype=torch.int64) for name in names}
