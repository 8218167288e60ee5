"""The last layer computed only for the position that the answer is read from.

A classifier reads one position of what its last layer gives, `hidden[:, 0]`, and nobody reads the others: a seventh of
what six layers multiply. All positions are needed where they mix last, as the keys and values of the last attention.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporter.edit import Editor, Size, drop_unused_constants, sizes

ELEMENTWISE = frozenset(
    (
        *("Abs", "Add", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
        *("IsNaN", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid"),
        *("Softplus", "Sqrt", "Sub", "Swish", "Tanh", "Where"),
    )
)
"""Operators that compute each number from those at the same place of their inputs."""

NORMS = frozenset(("LayerNormalization", "RMSNormalization"))
"""Operators that mix the numbers from their axis on; `AXIAL` along it alone."""

AXIAL = frozenset(("Concat", "Softmax", "Split"))


def narrow(graph: onnx_ir.Model) -> int:
    """Move each choice of one position up to where positions mix last, in place; how many products with weights need
    one position instead of all.

    What is read is computed by the same operators from the same numbers.
    """
    count = 0
    for node in list(graph.graph):
        region = _region(graph, node)
        if region is not None and region.products:
            _move(Editor(graph), region)
            count += region.products
    if count:
        RemoveUnusedNodesPass()(graph)
        drop_unused_constants(graph)
    return count


@dataclass(frozen=True, slots=True)
class _Region:
    """What computes only what one position is read of.

    `nodes` are in their order, without `choice` itself. `needs` are inputs of them by their node and place, and the
    axis, counted from the end, along which one position is needed.
    """

    choice: onnx_ir.Node
    index: int
    nodes: tuple[onnx_ir.Node, ...]
    needs: dict[tuple[onnx_ir.Node, int], int]

    @property
    def products(self) -> int:
        """How many products with weights there are."""
        products = [node.inputs[1] for node in self.nodes if node.op_type == "MatMul"]
        return sum(weight is not None and weight.is_initializer() for weight in products)


def _region(graph: onnx_ir.Model, choice: onnx_ir.Node) -> _Region | None:
    """The region of a node that chooses one position which is always the same; `None` of any other."""
    if choice.op_type != "Gather" or choice.domain:
        return None
    source, index = choice.inputs
    if source is None or source.is_initializer() or index is None or index.const_value is None:
        return None
    axis = _from_end(choice.attributes.get_int("axis", 0), source)
    if axis is None or axis == -1 or index.const_value.shape.rank():
        return None
    size = _size(source, axis)
    if size in (1, None):
        return None
    nodes: list[onnx_ir.Node] = []
    needs = {(choice, 0): axis}
    earlier = list(graph.graph)
    for node in reversed(earlier[: earlier.index(choice)]):
        read = {needs.get((use.node, use.idx)) for output in node.outputs for use in output.uses()}
        if len(read) != 1 or any(output.is_graph_output() for output in node.outputs):
            continue
        place = read.pop()
        found = None if place is None else _needed(node, place, size)
        if found is not None:
            nodes.append(node)
            needs |= {(node, number): axis for number, axis in found.items()}
    return _Region(choice, int(index.const_value.numpy()), tuple(reversed(nodes)), needs)


def _needed(node: onnx_ir.Node, axis: int, size: Size) -> dict[int, int] | None:
    """The inputs, by their place, of which one position is enough where one is read of the output along `axis`, and
    along which axis of theirs; `None` where positions mix, or it cannot be told."""
    if node.domain:
        return None
    first = node.inputs[0]
    if node.op_type in ELEMENTWISE:
        found = {place: _size(value, axis) for place, value in enumerate(node.inputs) if value is not None}
        return {place: axis for place in found if found[place] == size} if set(found.values()) <= {1, size} else None
    if node.op_type in NORMS or node.op_type in AXIAL:
        along = _from_end(node.attributes.get_int("axis", 0 if node.op_type == "Split" else -1), node.outputs[0])
        if along is None or axis == along or (axis > along and node.op_type in NORMS):
            return None
        return dict.fromkeys(range(len(node.inputs)) if node.op_type == "Concat" else (0,), axis)
    if node.op_type == "MatMul":
        return {0: axis} if axis == -2 and _size(first, axis) == size else None
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", ())
        return {0: order[axis] - len(order)} if order else None
    if node.op_type == "Reshape":
        before, after = sizes(first), sizes(node.outputs[0])
        kept = len(after) + axis + 1
        alike = kept > 0 and before[:kept] == after[:kept] and None not in after
        return {0: kept - 1 - len(before)} if alike and all(isinstance(item, int) for item in after[kept:]) else None
    return None


def _from_end(axis: int, value: onnx_ir.Value) -> int | None:
    """An axis of a value counted from its end; `None` where that cannot be told."""
    return axis if axis < 0 else axis - len(value.shape) if value.shape is not None else None


def _move(editor: Editor, region: _Region) -> None:
    """Let the region compute one position, chosen before it, and `choice` take the only one there is."""
    chosen: dict[tuple[onnx_ir.Value, int], onnx_ir.Value] = {}
    for node in region.nodes:
        for place, value in enumerate(node.inputs):
            axis = region.needs.get((node, place))
            if value is None or axis is None or value.producer() in region.nodes:
                continue
            if (value, axis) not in chosen:
                index = editor.constant(f"{value.name}.position", np.array([region.index]))
                (one,) = editor.add(node, "Gather", (value, index), (f"{value.name}.read",), axis=axis)
                one.type, one.shape = value.type, _one(value, axis)
                chosen[value, axis] = one
            node.replace_input_with(place, chosen[value, axis])
        axis = next(region.needs[use.node, use.idx] for output in node.outputs for use in output.uses())
        for output in node.outputs:
            output.shape = _one(output, axis)
        output = node.outputs[0]
        if node.op_type == "Reshape" and output.shape is not None:
            kept = len(output.shape) + axis + 1
            shape = [0] * kept + [item for item in output.shape[kept:] if isinstance(item, int)]
            node.replace_input_with(1, editor.constant(f"{output.name}.shape", np.array(shape)))
            node.attributes.pop("allowzero", None)
    region.choice.replace_input_with(1, editor.constant(f"{region.choice.outputs[0].name}.position", np.array(0)))


def _one(value: onnx_ir.Value, axis: int) -> onnx_ir.Shape | None:
    """A value's shape with one position along an axis."""
    if value.shape is None:
        return None
    shape = list(value.shape)
    shape[axis] = 1
    return onnx_ir.Shape(shape)


def _size(value: onnx_ir.Value | None, axis: int) -> Size:
    """The size of an axis, counted from the end, also where the tracer left out what a product, a softmax or an
    elementwise operator gives; 1 where a value has no such axis and so is the same everywhere."""
    if value is None:
        return None
    if value.shape is not None:
        known = sizes(value)
        return known[axis] if -axis <= len(known) else 1
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Softmax" or (node.op_type == "MatMul" and axis == -2):
        return _size(node.inputs[0], axis)
    if node.op_type in ELEMENTWISE:
        found = tuple({_size(item, axis) for item in node.inputs if item is not None} - {1})
        return found[0] if len(found) == 1 else None if found else 1
    return None
