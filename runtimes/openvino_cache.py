"""A decoder's graph with its cache as OpenVINO's own state, which the CPU plugin keeps in place.

Exported graphs are given the cache and return it, as ONNX Runtime's GroupQueryAttention does. OpenVINO's translation
of that operator takes one row alone and copies the cache at every step. Here it becomes the operators that the plugin
knows as one kernel: a state, what is new behind it, and attention over both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
from openvino import opset6, opset13

from artifact.generate.cache import PAST, PAST_STATE, PRESENT
from artifact.generate.decoder import POSITIONS
from artifact.generate.encoder import IDS
from errors import UserError
from runtimes.openvino_lookup import constant

ATTENTION = "GroupQueryAttention"
QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, TOTAL, COS, SIN, BIAS = 0, 1, 2, 3, 4, 6, 7, 8, 10
"""Where inputs of the operator stand."""

Node = Any


def keep_cache(graph: Any) -> None:
    """Replace every attention in place; inputs and outputs of the cache are gone, and `logits_positions` is an input.

    The rows of a batch have as many positions each: the mask only fills them up at their end. Raises `UserError` for a
    graph that is no decoder, or one whose attention cannot be said so.
    """
    if any(item.get_any_name().startswith(f"{PAST_STATE}.") for item in graph.inputs):
        raise UserError(
            "OpenVINO runs decoders so far whose layers all keep keys and values", "leave this candidate out"
        )
    attentions = [node for node in graph.get_ordered_ops() if node.get_type_name() == ATTENTION]
    wanted = next((node for node in graph.get_ops() if node.get_friendly_name() == POSITIONS), None)
    if not attentions or wanted is None:
        raise UserError("this graph is no decoder with a cache", "export it again")
    _Cache(graph).replace(attentions)
    asked = opset13.parameter([-1, -1], np.int64, name=POSITIONS)
    asked.output(0).set_names({POSITIONS})
    wanted.output(0).replace(asked.output(0))
    graph.add_parameters([asked])
    graph.validate_nodes_and_infer_types()


class _Cache:
    """What the attentions of one graph share, and the states that they leave."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        ids = next(item for item in graph.inputs if item.get_any_name() == IDS)
        sizes = opset13.shape_of(ids)
        self._rows = opset13.gather(sizes, constant([0]), constant(0))
        self._tokens = opset13.gather(sizes, constant(1), constant(0))
        count = opset13.squeeze(self._rows, constant(0))
        self._order = opset13.range(constant(0, np.int32), count, constant(1, np.int32), "i32")
        self._positions: Node = None
        self._total: Node = None
        self._masks: dict[int, Node] = {}
        self._tables: dict[str, Node] = {}

    def replace(self, attentions: Sequence[Node]) -> None:
        """Put all of them into other operators."""
        self._total = opset13.convert(attentions[0].input_value(TOTAL), "i64")
        start = opset13.subtract(self._total, self._tokens)
        self._positions = opset13.range(start, self._total, constant(1), "i64")
        states, parameters = [], []
        for node in attentions:
            kept = [node.input_value(place).get_node() for place in (PAST_KEY, PAST_VALUE)]
            made, assigned = self._attended(node, [parameter.get_friendly_name() for parameter in kept])
            node.output(0).replace(made.output(0))
            states += assigned
            parameters += kept
        for result in list(self._graph.get_results()):
            if result.input_value(0).get_any_name().startswith(f"{PRESENT}."):
                self._graph.remove_result(result)
        self._graph.add_variables([variable for variable, _ in states])
        self._graph.add_sinks([sink for _, sink in states])
        for parameter in parameters:
            self._graph.remove_parameter(parameter)

    def _attended(self, node: Node, names: Sequence[str]) -> tuple[Node, list[tuple[Any, Node]]]:
        """One attention, (rows, tokens, heads × head size), and its two states."""
        said = node.get_attributes()
        size = int(node.input_value(PAST_KEY).get_partial_shape()[3].get_length())
        query, *new = (node.input_value(place) for place in (QUERY, KEY, VALUE))
        if said["do_rotary"]:
            query, new[0] = (self._turned(states, node, size) for states in (query, new[0]))
        heads, kept = int(said["num_heads"]), int(said["kv_num_heads"])
        pairs, states = [], []
        for name, states_now in zip(names, new, strict=True):
            both, state = self._remembered(f"{PAST}.{name}", states_now, kept, size)
            pairs.append(self._shared(both, heads, kept, size))
            states.append(state)
        mask = self._mask(int(said["local_window_size"]))
        bias = node.input_value(BIAS)
        if bias.get_partial_shape()[0] != 0:
            mask = opset13.add(mask, bias)
        each = opset13.concat([self._rows, constant([1, 1, 1])], 0)  # a bf16 kernel reads past the end of a shared one
        mask = opset13.broadcast(mask, each, broadcast_spec="BIDIRECTIONAL")
        scale = constant(said["scale"] or size**-0.5, np.float32)
        found = opset13.scaled_dot_product_attention(query, *pairs, mask, scale)
        turned = opset13.transpose(found, constant([0, 2, 1, 3]))
        return opset13.reshape(turned, constant([0, 0, heads * size]), special_zero=True), states

    def _remembered(self, name: str, new: Any, heads: int, size: int) -> tuple[Node, tuple[Any, Node]]:
        """What came before and what is new, (rows, heads, positions, head size), and the state that keeps both."""
        info = openvino.op.util.VariableInfo()
        info.variable_id, info.data_type = name, openvino.Type.f32
        info.data_shape = openvino.PartialShape([-1, heads, -1, size])
        variable = openvino.op.util.Variable(info)
        empty = opset13.concat([self._rows, constant([heads, 0, size])], 0)
        before = opset6.read_value(opset13.broadcast(constant(0, np.float32), empty), variable)
        both = opset13.concat([opset13.gather(before, self._order, constant(0)), new], 2)
        return both, (variable, opset6.assign(both, variable))

    def _shared(self, states: Node, heads: int, kept: int, size: int) -> Node:
        """Keys or values for every head of the queries, several of which may share one."""
        if heads == kept:
            return states
        groups = opset13.concat([self._rows, constant([kept, heads // kept, 1, size])], 0)
        several = opset13.broadcast(opset13.unsqueeze(states, constant(2)), groups, broadcast_spec="BIDIRECTIONAL")
        return opset13.reshape(several, constant([0, heads, -1, size]), special_zero=True)

    def _mask(self, window: int) -> Node:
        """0 where a token may look and minus infinity elsewhere, float32 (1, 1, tokens, positions)."""
        if window not in self._masks:
            seen = opset13.range(constant(0), self._total, constant(1), "i64")
            of = opset13.unsqueeze(self._positions, constant(1))
            may = opset13.less_equal(seen, of)
            if window > 0:
                may = opset13.logical_and(may, opset13.greater(seen, opset13.subtract(of, constant(window))))
            found = opset13.select(may, constant(0, np.float32), constant(-np.inf, np.float32))
            self._masks[window] = opset13.unsqueeze(found, constant([0, 1]))
        return self._masks[window]

    def _turned(self, states: Any, node: Node, size: int) -> Node:
        """States rotated by their positions: x·cos + (−x₂, x₁)·sin (Su et al., 2021)."""
        cos, sin = (self._table(node.input_value(place)) for place in (COS, SIN))
        halves = opset13.variadic_split(states, constant(3), constant([size // 2, size // 2]))
        swapped = opset13.concat([opset13.multiply(halves.output(1), constant(-1, np.float32)), halves.output(0)], -1)
        return opset13.add(opset13.multiply(states, cos), opset13.multiply(swapped, sin))

    def _table(self, table: Any) -> Node:
        """The rows of a table for both halves at the tokens' positions, float32 (1, 1, tokens, head size)."""
        name = table.get_node().get_friendly_name()
        if name not in self._tables:
            rows = opset13.gather(table, self._positions, constant(0))
            self._tables[name] = opset13.unsqueeze(opset13.concat([rows, rows], 1), constant([0, 1]))
        return self._tables[name]
