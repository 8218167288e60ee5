"""Attention as one operator of ONNX Runtime's own, for graphs that no other engine reads.

In parts, a layer holds the scores of all pairs of tokens twice, and passes over them once more to add the mask:
MultiHeadAttention holds them once (`docs/benchmarks.md`).
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporter.edit import MICROSOFT, Editor, drop_unused_constants

BY_HEAD = (0, 2, 1, 3)
"""How (batch, tokens, heads, size) becomes (batch, heads, tokens, size), and back."""


@dataclass(frozen=True, slots=True)
class _Heads:
    """States (batch, tokens, heads · size) that are split into heads by `view`, of that shape."""

    source: onnx_ir.Value
    view: onnx_ir.Shape


@dataclass(frozen=True, slots=True)
class _Attention:
    """What an attention reads, and the node that gives its answer (batch, tokens, heads, size), joined next."""

    query: _Heads
    key: _Heads
    value: _Heads
    bias: onnx_ir.Value | None
    scale: float
    last: onnx_ir.Node


def attend(graph: onnx_ir.Model) -> int:
    """Replace every attention that is written out as softmax(q·kᵀ·scale + bias)·v in place; how many there were.

    A row that may look at nothing, which is padding, then answers with the mean of all values, and not with zeros.
    """
    editor, count = Editor(graph), 0
    for node in list(graph.graph):
        found = _attention(node) if node.op_type == "Softmax" else None
        if found is None:
            continue
        (answer,) = editor.add(
            found.last,
            "MultiHeadAttention",
            [found.query.source, found.key.source, found.value.source, None, None, found.bias],
            [f"{found.last.outputs[0].name}.attention"],
            domain=MICROSOFT,
            dtype=onnx_ir.DataType.FLOAT,
            num_heads=found.query.view[2],
            scale=found.scale,
        )
        editor.replace(found.last, answer)
        rows, tokens, heads, size = found.value.view
        answer.shape = onnx_ir.Shape((rows, tokens, heads * size))
        count += 1
    RemoveUnusedNodesPass()(graph)
    drop_unused_constants(graph)
    return count


def _attention(softmax: onnx_ir.Node) -> _Attention | None:
    """The attention around a softmax; `None` where anything of it is not as PyTorch's is traced."""
    scores, bias = _biased(softmax.inputs[0])
    scores, scale = _scaled(scores)
    product, summed = _made(scores, "MatMul"), _only_reader(softmax, "MatMul")
    if product is None or summed is None or summed.inputs[0] is not softmax.outputs[0] or not _is_by_key(softmax):
        return None
    query, query_scale = _scaled(product.inputs[0])
    key, key_scale = _scaled(product.inputs[1])
    queries, keys, values = _split(query), _split(_turned(key)), _split(summed.inputs[1])
    last = _swapped(summed)
    if queries is None or keys is None or values is None or last is None or not _fit(queries, keys, values, bias):
        return None
    return _Attention(queries, keys, values, bias, scale * query_scale * key_scale, last)


def _is_by_key(softmax: onnx_ir.Node) -> bool:
    """Whether shares of all keys, the last axis, add up to one."""
    axis = softmax.attributes.get("axis")
    return axis is None or axis.as_int() in (-1, 3)


def _made(value: onnx_ir.Value | None, op: str) -> onnx_ir.Node | None:
    """The node of this kind that computes a value."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op and not node.domain else None


def _only_reader(node: onnx_ir.Node | None, op: str) -> onnx_ir.Node | None:
    """The node of this kind that alone reads what another computes."""
    if node is None or node.outputs[0].is_graph_output():
        return None
    readers = [use.node for use in node.outputs[0].uses()]
    return readers[0] if len(readers) == 1 and readers[0].op_type == op and not readers[0].domain else None


def _biased(value: onnx_ir.Value | None) -> tuple[onnx_ir.Value | None, onnx_ir.Value | None]:
    """A value before something was added, and that."""
    node = _made(value, "Add")
    return (value, None) if node is None else (node.inputs[0], node.inputs[1])


def _scaled(value: onnx_ir.Value | None) -> tuple[onnx_ir.Value | None, float]:
    """A value before it was multiplied by one number, and that number."""
    node = _made(value, "Mul")
    factor = None if node is None or node.inputs[1] is None else node.inputs[1].const_value
    if node is None or factor is None or factor.size != 1:
        return value, 1.0
    return node.inputs[0], float(factor.numpy().reshape(()))


def _turned(value: onnx_ir.Value | None) -> onnx_ir.Value | None:
    """Keys by head before their last two axes were swapped, which is traced in three dimensions."""
    swap = _made(_before(value, "Reshape"), "Transpose")
    return _before(swap.inputs[0], "Reshape") if swap is not None and _order(swap) == (0, 2, 1) else None


def _before(value: onnx_ir.Value | None, op: str) -> onnx_ir.Value | None:
    node = _made(value, op)
    return None if node is None else node.inputs[0]


def _order(node: onnx_ir.Node) -> tuple[int, ...] | None:
    found = node.attributes.get("perm")
    return None if found is None else tuple(found.as_ints())


def _split(value: onnx_ir.Value | None) -> _Heads | None:
    """What a value (batch, heads, tokens, size) was before its heads were told apart."""
    node = _made(value, "Transpose")
    view = node.inputs[0] if node is not None and _order(node) == BY_HEAD else None
    source = _before(view, "Reshape")
    if view is None or view.shape is None or len(view.shape) != 4 or source is None or source.shape is None:
        return None
    return _Heads(source, view.shape) if len(source.shape) == 3 else None


def _swapped(summed: onnx_ir.Node) -> onnx_ir.Node | None:
    """The node after which the heads' answers are joined; zeros may be chosen before it where a row sees nothing."""
    chosen = _only_reader(summed, "Where")
    zeros = None if chosen is None or chosen.inputs[1] is None else chosen.inputs[1].const_value
    if chosen is not None and (zeros is None or np.any(zeros.numpy())):
        return None
    swapped = _only_reader(chosen or summed, "Transpose")
    joined = None if swapped is None or _order(swapped) != BY_HEAD else _only_reader(swapped, "Reshape")
    return None if joined is None else swapped


def _fit(queries: _Heads, keys: _Heads, values: _Heads, bias: onnx_ir.Value | None) -> bool:
    """Whether the shapes are those that the operator takes: as many heads everywhere, and a bias for every pair."""
    query, key, value = queries.view, keys.view, values.view
    if not all(isinstance(size, int) for size in (query[2], value[3])) or not query[2] == key[2] == value[2]:
        return False
    if bias is None:
        return True
    if bias.shape is None or len(bias.shape) != 4 or bias.dtype is not onnx_ir.DataType.FLOAT:
        return False
    rows, copies, tokens, seen = bias.shape
    return rows in (1, query[0]) and copies in (1, query[2]) and tokens == query[1] and seen == key[1]
