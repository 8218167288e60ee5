"""A traced graph made fit to ship: readable names, nothing of the builder, and only what the task needs."""

import ast
from collections import Counter

import onnx
import onnx_ir
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from errors import UserError
from exporter.narrow import narrow
from exporter.subject import Subject
from exporter.tie import tie

SCOPES = "pkg.torch.onnx.name_scopes"
NO_MODULE = "_empty_nn_module_stack"
"""How torch.export begins the name of a module that it does not know."""

PRODUCER = "steelyard"


def clean(graph: onnx_ir.Model, subject: Subject) -> onnx_ir.Model:
    """The same graph with its axes, nodes and weights named after the subject's, and without metadata.

    Raises `UserError` when an axis that should vary became static in the trace.
    """
    _keep_outputs(graph, subject.outputs)
    _name_axes(graph, subject)
    narrow(graph)
    name_nodes(graph)
    return strip(tie(graph))


def strip(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Remove what says who built the graph, and whatever it does not use; the IR version is the opset's own."""
    RemoveUnusedNodesPass()(graph)
    RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
    ClearMetadataAndDocStringPass()(graph)
    for value in (*graph.graph.initializers.values(), *values(graph)):  # which that pass leaves out
        value.metadata_props.clear()
    RemoveUnusedOpsetsPass()(graph)
    graph.producer_name, graph.producer_version = PRODUCER, None
    graph.graph.name = "model"
    opset = onnx.helper.make_opsetid("", graph.opset_imports[""])
    graph.ir_version = onnx.helper.find_min_ir_version_for([opset])
    return graph


def fill_types(graph: onnx_ir.Model) -> None:
    """Give each value whose number type the tracer left out that of an input which its operator gives it."""
    opset = graph.opset_imports[""]
    for node in graph.graph:
        if node.domain or all(output.dtype is not None for output in node.outputs):
            continue
        schema = onnx.defs.get_schema(node.op_type, opset)
        known = {
            formal.type_str: value.type
            for formal, value in zip(schema.inputs, node.inputs, strict=False)
            if value is not None and value.type is not None
        }
        for formal, output in zip(schema.outputs, node.outputs, strict=False):
            output.type = output.type or known.get(formal.type_str)


def values(graph: onnx_ir.Model) -> list[onnx_ir.Value]:
    """The graph's inputs and everything that its nodes compute."""
    return [*graph.graph.inputs, *(output for node in graph.graph.all_nodes() for output in node.outputs)]


def _keep_outputs(graph: onnx_ir.Model, names: tuple[str, ...]) -> None:
    found = {value.name: value for value in graph.graph.outputs}
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"the traced graph gives {', '.join(map(str, found))}, and not {missing[0]}")
    graph.graph.outputs[:] = [found[name] for name in names]


def _name_axes(graph: onnx_ir.Model, subject: Subject) -> None:
    """Give the tracer's symbols their names; drop inner shapes that are expressions of them."""
    symbols: dict[str, str] = {}
    inputs = {item.name: item for item in subject.inputs}
    for value in graph.graph.inputs:
        for place, axis in inputs[str(value.name)].axes.items():
            dimension = value.shape[place] if value.shape is not None else None
            if not isinstance(dimension, onnx_ir.SymbolicDim) or dimension.value is None:
                raise UserError(
                    f"the axis '{axis.name}' of input '{value.name}' became static in the trace",
                    "the module does not depend on it, or fixes it; give a sample that does not share its size",
                )
            symbols[dimension.value] = axis.name
    for value in values(graph):
        if value.shape is None:
            continue
        named: list[int | str] = []
        for place, dimension in enumerate(value.shape):
            if isinstance(dimension, int):
                named.append(dimension)
            elif dimension.value in symbols:
                named.append(symbols[dimension.value])
            elif value.is_graph_output():
                named.append(f"{value.name}_{place}")
            else:
                break
        value.shape = onnx_ir.Shape(named) if len(named) == len(value.shape) else None


def name_nodes(graph: onnx_ir.Model) -> None:
    """Name each node after the module it comes from, and each weight that lost its name after its node."""
    seen: Counter[str] = Counter()
    for node in graph.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        module = str(scopes[-2]) if len(scopes) > 1 and not str(scopes[-2]).startswith(NO_MODULE) else ""
        name = f"{module}/{node.op_type}" if module else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
    taken = set(graph.graph.initializers)
    for node in graph.graph:
        for value in node.inputs:
            if value is None or not value.is_initializer() or not str(value.name).startswith("val_"):
                continue
            name = f"{node.name}.{'weight' if value.shape is not None and len(value.shape) > 1 else 'constant'}"
            if len(value.uses()) == 1 and name not in taken:
                del graph.graph.initializers[str(value.name)]
                value.name = name
                graph.graph.register_initializer(value)
                taken.add(name)
