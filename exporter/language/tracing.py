"""What the traces of all models that write text have in common."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)

from artifact.generate.cache import CacheShape, Kept
from artifact.generate.decoder import LOGITS, POSITIONS
from artifact.generate.encoder import IDS, MASK
from errors import UserError
from exporter.clean import fill_types, name_nodes, strip
from exporter.language.attention import Attending, attending
from exporter.language.derivations import OPSET
from exporter.language.norms import norming
from exporter.tie import tie
from exporter.trace import hushed_tracer
from models.checkpoint import quiet

VARY = torch.export.Dim.DYNAMIC
UNKNOWN_CONTEXT = 2048
"""Positions of a model that does not say how many it has."""


@contextmanager
def ready_to_trace(model: Any) -> Iterator[Attending]:
    """Attentions and norms that are traced as one operator each, and a silent tracer, inside the block."""
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(hushed_tracer())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        found = stack.enter_context(attending(model))
        stack.enter_context(norming(model))
        yield found


def empty_cache(shape: CacheShape, rows: int, positions: int) -> list[torch.Tensor]:
    """A cache of zeros for so many rows."""
    return [torch.zeros(kept.size(rows, positions)) for kept in shape.kept]


def step_example(shape: CacheShape) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a step is traced with, and which of its axes vary: three new tokens of two rows after four others."""
    given = {
        "input_ids": torch.arange(6).reshape(2, 3),
        "attention_mask": torch.ones(2, 7, dtype=torch.int64),
        "logits_positions": torch.tensor([[1, 2], [0, 2]]),
        "past": empty_cache(shape, 2, 16),
    }
    axes: dict[str, Any] = {name: {0: VARY, 1: VARY} for name in given}
    return given, axes | {"past": cache_axes(shape)}


def cache_axes(shape: CacheShape) -> list[dict[int, Any]]:
    """The axes that vary of what is kept: rows, and positions where there are any."""
    return [{0: VARY} | ({1 + kept.axes.index(None): VARY} if kept.grows else {}) for kept in shape.kept]


def traced(module: torch.nn.Module, model: Any, given: Mapping[str, Any], shapes: Mapping[str, Any]) -> onnx_ir.Model:
    """The graph of a module around `model`. Raises `UserError` when it cannot be traced."""
    try:
        with torch.no_grad():
            exported = torch.export.export(
                module,
                (),
                dict(given),
                dynamic_shapes=dict(shapes),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            program = torch.onnx.export(exported, dynamo=True, optimize=False, opset_version=OPSET, verbose=False)
            if program is not None:
                _join_equals(program.model)
                program.optimize()
    except UserError:
        raise
    except Exception as error:  # torch.export fails in many types, all of them about this model
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{type(model).__name__} cannot be traced: {first}", "take another model") from error
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model


def _join_equals(graph: onnx_ir.Model) -> None:
    """Keep one of equal nodes: layers repeat what reckons with shapes, and an optimiser tries each of its rules on each
    node, in 5 s of a trace of 25 s for 30 layers, and so in 1 s."""
    InlinePass()(graph)
    RemoveUnusedNodesPass()(graph)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    DeduplicateInitializersPass()(graph)
    CommonSubexpressionEliminationPass()(graph)


def name_value(value: onnx_ir.Value, name: str, axes: Sequence[Any]) -> None:
    """Give an input or output its name and axes."""
    value.name, value.shape = name, onnx_ir.Shape(axes)


def name_kept(value: onnx_ir.Value, name: str, kept: Kept, positions: str = "positions") -> None:
    """Name something that is kept, and its axes."""
    name_value(value, name, ("batch", *(positions if axis is None else axis for axis in kept.axes)))


def name_step(graph: onnx_ir.Model, shape: CacheShape) -> onnx_ir.Value:
    """Name what every step of a decoder takes and gives: its first inputs and all outputs; returns the input that says
    which logits are wanted."""
    ids, mask, wanted, *past = graph.graph.inputs[: 3 + len(shape.kept)]
    logits, *present = graph.graph.outputs
    name_value(ids, IDS, ("batch", "sequence"))
    name_value(mask, MASK, ("batch", "total"))
    name_value(wanted, POSITIONS, ("kept_rows", "kept"))
    words = None if logits.shape is None else logits.shape[2]
    name_value(logits, LOGITS, ("batch", 1, words))  # what serves gets; onnxruntime-genai makes room for that
    for kept, before, after in zip(shape.kept, past, present, strict=True):
        name_kept(before, kept.past, kept)
        name_kept(after, kept.present, kept)
    return wanted


def default_to_last(graph: onnx_ir.Model, wanted: onnx_ir.Value) -> None:
    """Let logits be those after each row's last token where nobody says which are wanted."""
    wanted.const_value = onnx_ir.tensor(np.array([[-1]], dtype=np.int64), name=POSITIONS)
    graph.graph.register_initializer(wanted)


def tidied(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Clear names and shared weights; nothing of the builder."""
    _join_reshapes(graph)
    outputs = set(graph.graph.outputs)
    within = [value for body in graph.graph.subgraphs() for value in body.inputs]
    for value in (*within, *(made for node in graph.graph.all_nodes() for made in node.outputs)):
        if value not in outputs:
            value.shape = None  # expressions of the tracer's symbols
    name_nodes(graph)
    fill_types(graph)
    return strip(tie(graph))


def _join_reshapes(graph: onnx_ir.Model) -> None:
    """Drop what splits states into heads where the attention takes them whole, and joins them again."""
    for node in graph.graph:
        if node.op_type != "Reshape" or node.inputs[0] is None:
            continue
        first = node.inputs[0].producer()
        if first is not None and first.op_type == "Reshape":
            node.replace_input_with(0, first.inputs[0])
        source, made = node.inputs[0], node.outputs[0]
        if source is not None and source.shape is not None and source.shape == made.shape:
            made.replace_all_uses_with(source)
