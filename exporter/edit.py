"""Small edits of a graph: a constant, a node before another one, a node with its output replaced."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

MICROSOFT = "com.microsoft"

Size = int | str | None
"""Of an axis: its length, its name, or unknown."""


class Editor:
    """Adds to one graph. Values are named after what they are made for, so the same edits give the same bytes."""

    def __init__(self, graph: onnx_ir.Model) -> None:
        self.model, self.graph = graph, graph.graph
        self._names = {str(value.name) for node in graph.graph.all_nodes() for value in node.outputs}
        self._names |= {str(name) for name in graph.graph.initializers} | {
            str(item.name) for item in graph.graph.inputs
        }

    def constant(self, name: str, array: NDArray[Any], dtype: onnx_ir.DataType | None = None) -> onnx_ir.Value:
        """An initializer; `dtype` for types that numpy lacks."""
        name = self._free(name)
        tensor = onnx_ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
        value = onnx_ir.Value(name=name, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def add(
        self,
        place: onnx_ir.Node,
        op: str,
        inputs: Sequence[onnx_ir.Value | None],
        names: Sequence[str],
        *,
        domain: str = "",
        dtype: onnx_ir.DataType | None = None,
        after: bool = False,
        **attributes: Any,
    ) -> tuple[onnx_ir.Value, ...]:
        """Insert a node before `place`, or after it; its outputs are called `names`, and it after the first of them."""
        free = [self._free(name) for name in names]
        node = onnx_ir.node(op, inputs, attributes, domain=domain, num_outputs=len(names), name=f"{free[0]}/{op}")
        for output, name in zip(node.outputs, free, strict=True):
            output.name = name
        if dtype is not None:
            node.outputs[0].type = onnx_ir.TensorType(dtype)
        (self.graph.insert_after if after else self.graph.insert_before)(place, node)
        if domain:
            self.model.opset_imports.setdefault(domain, 1)
        return tuple(node.outputs)

    def replace(self, node: onnx_ir.Node, value: onnx_ir.Value) -> None:
        """Let `value` stand for the only output of `node`, name included, and remove the node."""
        old = node.outputs[0]
        name, old.name = old.name, self._free(f"{old.name}.replaced")
        value.name, value.shape, value.type = name, old.shape, value.type or old.type
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free


def drop_unused_constants(graph: onnx_ir.Model) -> None:
    """Remove initializers that nothing reads any more."""
    for name, value in list(graph.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.graph.initializers[name]


def maker(value: onnx_ir.Value) -> onnx_ir.Node:
    """The node that computes a value that was just added."""
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name} is not computed")
    return node


def sizes(value: onnx_ir.Value | None) -> tuple[Size, ...]:
    """The sizes of a value's axes; none where its rank is unknown."""
    if value is None or value.shape is None:
        return ()
    return tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape)
