"""The one trace of a checkpoint. Only this file knows `transformers.exporters`, whose interface is young."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedOpsetsPass
from torch.export import Dim
from transformers.exporters import OnnxConfig, OnnxExporter

from artifact.records import replacing
from errors import UserError
from models.checkpoint import load_model, model_input_names, quiet

EXTERNAL_DATA_BYTES = 1_500_000_000
"""Graphs with more weight bytes keep them in a second file: a protobuf ends at 2 GB."""

SAMPLE_SHAPE = (2, 8)
"""Batch and length of the traced sample; an axis of one would be baked in as static."""


def trace(checkpoint: Path) -> onnx_ir.Model:
    """Trace a checkpoint's model to an fp32 graph whose axes are named `batch` and `sequence`, without metadata.

    Every input shares the two axes, so a mask with fewer rows or columns than the ids is refused when the graph runs
    (of one with more, the graph reads only what it needs). Raises `UserError` when the architecture cannot be traced.
    """
    model = load_model(checkpoint)
    sample = _sample(model_input_names(checkpoint))
    axes = (Dim("batch", min=1, max=65536), Dim("sequence", min=1, max=_longest(model)))
    shapes = {name: dict(enumerate(axes)) for name in sample}
    with quiet(), _hushed():
        try:
            config = OnnxConfig(dynamic=True, dynamic_shapes=shapes)
            graph: onnx_ir.Model = OnnxExporter().export_program(model, sample, config)[0]
        except Exception as error:  # torch.export fails in many types, all of them about this model
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"{type(model).__name__} cannot be traced: {first}",
                "try another architecture, such as BERT, DistilBERT or RoBERTa",
            ) from error
    _name_axes(graph)
    ClearMetadataAndDocStringPass()(graph)
    for value in (*graph.graph.initializers.values(), *_values(graph)):  # which that pass leaves out
        value.metadata_props.clear()
    RemoveUnusedOpsetsPass()(graph)
    return graph


def save_graph(graph: onnx_ir.Model, path: Path, *, external_data_bytes: int = EXTERNAL_DATA_BYTES) -> None:
    """Write a graph whole or not at all; above `external_data_bytes` of weights, beside one `_data` file."""
    weights = sum(
        value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None
    )
    if weights > external_data_bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx_ir.save(graph, path, external_data=f"{path.name}_data")
        return
    with replacing(path) as temporary:
        onnx_ir.save(graph, temporary, format="protobuf")


def _sample(names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A batch of two rows of unequal length, so that the mask is part of the trace."""
    rows, length = SAMPLE_SHAPE
    mask = torch.ones(SAMPLE_SHAPE, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    ids = torch.arange(rows * length, dtype=torch.int64).reshape(SAMPLE_SHAPE) % 5 + 1
    known = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}
    missing = set(names) - set(known)
    if missing:
        raise UserError(f"the model takes inputs that no text tokenizer gives: {', '.join(sorted(missing))}")
    return {name: known[name] for name in names}


def _longest(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0) or 65536)


def _name_axes(graph: onnx_ir.Model) -> None:
    """Give the tracer's symbols their names; drop inner shapes that are expressions of them."""
    symbols: dict[str, str] = {}
    for value in graph.graph.inputs:
        for dimension, name in zip(value.shape or (), ("batch", "sequence"), strict=True):
            if not isinstance(dimension, onnx_ir.SymbolicDim) or dimension.value is None:
                raise UserError(f"the axis '{name}' of input '{value.name}' became static in the trace")
            symbols[dimension.value] = name
    for value in _values(graph):
        if value.shape is None:
            continue
        named: list[int | str] = []
        for dimension in value.shape:
            if isinstance(dimension, int):
                named.append(dimension)
            elif dimension.value in symbols:
                named.append(symbols[dimension.value])
            else:
                break
        value.shape = onnx_ir.Shape(named) if len(named) == len(value.shape) else None


def _values(graph: onnx_ir.Model) -> list[onnx_ir.Value]:
    """The graph's inputs and everything that its nodes compute."""
    return [*graph.graph.inputs, *(output for node in graph.graph.all_nodes() for output in node.outputs)]


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep the tracer's progress and version advice off the terminal inside the block."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "transformers")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
