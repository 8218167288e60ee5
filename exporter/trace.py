"""The one trace of a subject. Only this file knows `transformers.exporters`, whose interface is young."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import onnx_ir
import torch
from torch.export import Dim
from transformers.exporters import OnnxConfig, OnnxExporter

from errors import UserError
from exporter.clean import clean
from exporter.subject import Subject, named_outputs
from models.checkpoint import quiet
from models.quiet import hushed

HUSHED = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "transformers")


def trace(subject: Subject, *, opset: int | None = None) -> onnx_ir.Model:
    """Trace a subject to an fp32 graph whose axes are named and shared between inputs, without metadata.

    A mask with fewer rows or columns than the ids is refused when the graph runs (of one with more, the graph reads
    only what it needs). The module is left as it was. Raises `UserError` when it cannot be traced, or an axis became
    static.
    """
    sample = subject.sample()
    axes = {axis.name: Dim(axis.name, min=axis.trials[0], max=axis.most) for axis in subject.axes}
    shapes = {item.name: {place: axes[axis.name] for place, axis in item.axes.items()} for item in subject.inputs}
    tracer = _trace_transformers if subject.is_transformers else _trace_module
    was_training = subject.module.training
    with quiet(), hushed_tracer():
        try:
            graph = tracer(subject.module, sample, shapes, opset)
        except Exception as error:  # torch.export fails in many types, all of them about this model
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{subject.name} cannot be traced: {first}",
                "docs/architectures.md lists what is known to work; for a module of your own, take Python branches on "
                "tensor values out of forward",
            ) from error
        finally:
            subject.module.train(was_training)
    return clean(graph, subject)


def _trace_transformers(module: Any, sample: dict[str, torch.Tensor], shapes: Any, opset: int | None) -> onnx_ir.Model:
    # deferred asserts: else a branch on the length, such as MobileBERT's, refuses a trace for all lengths
    config = OnnxConfig(
        dynamic=True, dynamic_shapes=shapes, opset_version=opset, prefer_deferred_runtime_asserts_over_guards=True
    )
    graph: onnx_ir.Model = OnnxExporter().export_program(module, sample, config)[0]
    return graph


def _trace_module(module: Any, sample: dict[str, torch.Tensor], shapes: Any, opset: int | None) -> onnx_ir.Model:
    with torch.no_grad():
        names = tuple(named_outputs(module(**sample)))
    program = torch.onnx.export(
        module,
        (),
        kwargs=sample,
        input_names=list(sample),
        output_names=list(names),
        dynamic_shapes=shapes,
        opset_version=opset,
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model


@contextmanager
def hushed_tracer() -> Iterator[None]:
    """Keep the tracer's progress, version advice and dumps of failed graphs off the terminal inside the block."""
    with hushed(*HUSHED), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
