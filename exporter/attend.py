"""Attention as one operator of ONNX Runtime's own, for graphs that no other engine reads.

In parts, a layer holds the scores of all pairs of tokens twice, and passes over them once more to add the mask:
MultiHeadAttention holds them once (`docs/benchmarks.md`).
"""

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import ANY_VALUE, OrValue, RewriteRuleClassBase, RewriteRuleSet

from exporter.edit import MICROSOFT, drop_unused_constants, sizes

BY_HEAD = (0, 2, 1, 3)
"""How (batch, tokens, heads, size) becomes (batch, heads, tokens, size), and back."""


def attend(graph: onnx_ir.Model) -> int:
    """Replace every attention that is written out as softmax(q·kᵀ·scale + bias)·v in place; how many there were.

    A row that may look at nothing, which is padding, then answers with the mean of all values, and not with zeros.
    """
    count = RewriteRuleSet([_Attention.rule()]).apply_to_model(graph)
    for node in graph.graph:
        if node.op_type == "MultiHeadAttention":
            query, value = (node.inputs[place].shape for place in (0, 2))  # type: ignore[union-attr]
            node.outputs[0].shape = onnx_ir.Shape((query[0], query[1], value[2]))  # type: ignore[index]
    RemoveUnusedNodesPass()(graph)
    drop_unused_constants(graph)
    return int(count)


class _Attention(RewriteRuleClassBase):  # type: ignore[misc]
    """Attention as PyTorch's is traced, from where heads are told apart to where they are joined.

    onnxscript's own `fuse_sdpa` knows more forms, and leaves an operator that no engine has where the rest is not as
    ONNX Runtime wants it.
    """

    def __init__(self) -> None:
        super().__init__("attention", remove_nodes=False)  # what else reads a part keeps it

    def pattern(
        self,
        op: Any,
        query: Any,
        key: Any,
        value: Any,
        bias: Any,
        query_scale: Any,
        key_scale: Any,
        blind: Any,
        zeros: Any,
    ) -> Any:
        """Zeros may be chosen where a row is blind; keys are turned in three dimensions."""
        queries, keys, values = (
            op.Transpose(op.Reshape(source, ANY_VALUE, _outputs=[name]), perm=list(BY_HEAD))
            for source, name in ((query, "query_heads"), (key, "key_heads"), (value, "value_heads"))
        )
        turned = op.Reshape(op.Transpose(op.Reshape(keys, ANY_VALUE), perm=[0, 2, 1]), ANY_VALUE)
        scores = op.MatMul(op.Mul(queries, query_scale), op.Mul(turned, key_scale))
        shares = op.Softmax(OrValue([op.Add(scores, bias), scores]), axis=-1, _outputs=["shares"])
        summed = op.MatMul(shares, values)
        return op.Transpose(OrValue([op.Where(blind, zeros, summed), summed]), perm=list(BY_HEAD), _outputs=["told"])

    def check(
        self,
        context: Any,
        query: onnx_ir.Value,
        key: onnx_ir.Value,
        value: onnx_ir.Value,
        query_heads: onnx_ir.Value,
        key_heads: onnx_ir.Value,
        value_heads: onnx_ir.Value,
        query_scale: onnx_ir.Value,
        key_scale: onnx_ir.Value,
        shares: onnx_ir.Value,
        told: onnx_ir.Value,
        bias: onnx_ir.Value | None = None,
        zeros: onnx_ir.Value | None = None,
        **others: Any,
    ) -> bool:
        """Whether the operator computes the same: as many heads everywhere, and a bias for every pair of tokens."""
        queries, keys, values = (_shape(heads, 4) for heads in (query_heads, key_heads, value_heads))
        heads = {shape[2] for shape in (queries, keys, values) if shape}
        return bool(
            all(_shape(source, 3) for source in (query, key, value))
            and queries
            and keys
            and values
            and len(heads) == 1
            and all(isinstance(count, int) for count in heads)
            and all(_number(scale) is not None for scale in (query_scale, key_scale))
            and (zeros is None or _number(zeros) == 0)
            and _readers(shares) == ["MatMul"]
            and _readers(told) == ["Reshape"]
            and (bias is None or _is_for_pairs(_shape(bias, 4), queries, keys))
        )

    def rewrite(
        self,
        op: Any,
        query: onnx_ir.Value,
        key: onnx_ir.Value,
        value: onnx_ir.Value,
        query_heads: onnx_ir.Value,
        query_scale: onnx_ir.Value,
        key_scale: onnx_ir.Value,
        bias: onnx_ir.Value | None = None,
        **others: Any,
    ) -> Any:
        given = (query, key, value, None, None, bias)
        scale = (_number(query_scale) or 0.0) * (_number(key_scale) or 0.0)
        return op.MultiHeadAttention(*given, num_heads=_shape(query_heads, 4)[2], scale=scale, _domain=MICROSOFT)


def _shape(value: onnx_ir.Value, rank: int) -> tuple[int | str, ...]:
    """The sizes of a value's axes, or their names; nothing if it has another rank or an axis is unknown."""
    found = sizes(value)
    return () if len(found) != rank or None in found else found  # type: ignore[return-value]


def _number(value: onnx_ir.Value) -> float | None:
    """The one number that a constant holds."""
    held = value.const_value
    return float(np.ravel(held.numpy())[0]) if held is not None and held.size == 1 else None


def _readers(value: onnx_ir.Value) -> list[str]:
    """What reads a value."""
    return ["output"] * value.is_graph_output() + [use.node.op_type for use in value.uses()]


def _is_for_pairs(bias: tuple[int | str, ...], queries: tuple[int | str, ...], keys: tuple[int | str, ...]) -> bool:
    """Whether a bias has a number for every query and key, perhaps the same in all rows and heads."""
    return (
        bool(bias)
        and bias[0] in (1, queries[0])
        and bias[1] in (1, queries[2])
        and (bias[2], bias[3]) == (queries[1], keys[1])
    )
