"""The graph of many layers that are alike, made from that of the first of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from exporter.language.blocks import STEP
from exporter.language.stack import TRACED, Stack

LAST = TRACED - 1
NESTED = {onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS}


class NotAlikeError(Exception):
    """A layer's graph does not follow from that of the layer before by other weights alone."""


@dataclass(slots=True)
class _Layer:
    """The last traced layer: its nodes; by the values of the layer before, its own; which values of the layer before it
    reads; its weights, by their names in the layer; and the inputs that hold what it keeps."""

    nodes: Sequence[onnx_ir.Node]
    follows: dict[onnx_ir.Value, onnx_ir.Value] = field(default_factory=dict)
    reads: set[onnx_ir.Value] = field(default_factory=set)
    weights: dict[onnx_ir.Value, str] = field(default_factory=dict)
    kept: set[onnx_ir.Value] = field(default_factory=set)


def repeated(graph: onnx_ir.Model, stack: Stack) -> onnx_ir.Model:
    """The graph of a whole stack, made in place of that of its first layers. Raises `NotAlikeError`, and leaves the
    graph as it was, where a layer does not just repeat the one before."""
    layer = _last(graph, stack.name)
    sources = _sources(layer, stack.layers[LAST])
    given = [value for value in graph.graph.inputs if value in layer.kept]
    left = [value for value in graph.graph.outputs if value.producer() in layer.nodes]
    if not given or not left:
        raise NotAlikeError("a layer keeps nothing of its own")
    more: list[tuple[list[onnx_ir.Value], list[onnx_ir.Value]]] = []
    place, latest = layer.nodes[-1], {value: value for value in layer.follows.values()}
    for number, module in enumerate(stack.layers[TRACED:], start=TRACED):
        own = {value: latest[layer.follows[value]] for value in layer.reads}
        own |= {value: _like(value, number) for value in (*given, *sources)}
        for value, (name, is_turned) in sources.items():
            _store(graph, own[value], module.get_parameter(name), is_turned=is_turned)
        for node in layer.nodes:
            copy = _copy(node, own, number)
            graph.graph.insert_after(place, copy)
            place = copy
        latest = {value: own[value] for value in latest}
        more.append(([own[value] for value in given], [own[value] for value in left]))
    _hand_on(latest, stack.name)
    for listed, last, values in (
        (graph.graph.inputs, given, [value for inputs, _ in more for value in inputs]),
        (graph.graph.outputs, left, [value for _, outputs in more for value in outputs]),
    ):
        end = listed.index(last[-1]) + 1
        listed[end:end] = values
    graph.graph.sort()
    return graph


def _hand_on(latest: Mapping[onnx_ir.Value, onnx_ir.Value], name: str) -> None:
    """Let what comes behind the layers read values of the latest one in the place of those of the last traced one."""
    for value, last in latest.items():
        for node, index in tuple(value.uses()):
            if not str(node.name).startswith(f"{STEP}{name}."):
                node.replace_input_with(index, last)


def _last(graph: onnx_ir.Model, name: str) -> _Layer:
    """How the last traced layer follows from the one before. Raises `NotAlikeError` where it does not."""
    before, last = (
        [node for node in graph.graph if str(node.name).startswith((f"{begins}.", f"{begins}/"))]
        for begins in (f"{STEP}{name}.{number}" for number in (LAST - 1, LAST))
    )
    if not last or [_kind(node) for node in before] != [_kind(node) for node in last]:
        raise NotAlikeError("layers have other nodes")
    layer, made = _Layer(last), {value for node in before for value in node.outputs}
    for one, two in zip(before, last, strict=True):
        if not _same(one.attributes, two.attributes):
            raise NotAlikeError(f"{two.name} has other attributes")
        for mine, own in zip(one.inputs, two.inputs, strict=True):
            if mine is own and mine not in made:
                continue  # what all layers share
            if mine is None or own is None or not _follows(layer, made, name, mine, own):
                raise NotAlikeError(f"{two.name} reads something else")
        layer.follows |= dict(zip(one.outputs, two.outputs, strict=True))
    return layer


def _kind(node: onnx_ir.Node) -> tuple[Any, ...]:
    return node.domain, node.op_type, node.overload, len(node.inputs), len(node.outputs)


def _same(one: Mapping[str, onnx_ir.Attr], two: Mapping[str, onnx_ir.Attr]) -> bool:
    """Whether attributes are equal; those that hold graphs are not looked into."""

    def known(held: Mapping[str, onnx_ir.Attr]) -> dict[str, Any]:
        tensors = onnx_ir.AttributeType.TENSOR
        return {
            name: (item.type, item.value.numpy().tobytes() if item.type == tensors else item.value)
            for name, item in held.items()
        }

    return not any(item.type in NESTED for item in one.values()) and known(one) == known(two)


def _follows(layer: _Layer, made: set[onnx_ir.Value], name: str, before: onnx_ir.Value, last: onnx_ir.Value) -> bool:
    """Whether a node of the last layer reads `last` as that of the layer before reads `before`, which is noted."""
    if before in layer.follows:
        return layer.follows[before] is last
    if before.is_graph_input() and last.is_graph_input():
        layer.kept.add(last)
        return str(before.name).replace(f".{LAST - 1}.", f".{LAST}.") == last.name
    if before.is_initializer() and last.is_initializer():
        names = [
            str(value.name).partition(f"{name}.{number}.")[2] for value, number in ((before, LAST - 1), (last, LAST))
        ]
        layer.weights[last] = names[1]
        return names[0] == names[1] != ""
    layer.reads.add(last)
    return before.producer() is not None and last in made


def _renamed(name: str | None, number: int) -> str:
    """A name of the last layer's as another layer has it."""
    return re.sub(rf"\.{LAST}(?=[./])", f".{number}", str(name), count=1)


def _like(value: onnx_ir.Value, number: int) -> onnx_ir.Value:
    """What another layer has in this one's place."""
    return onnx_ir.Value(name=_renamed(value.name, number), shape=value.shape, type=value.type)


def _sources(layer: _Layer, module: torch.nn.Module) -> dict[onnx_ir.Value, tuple[str, bool]]:
    """Of each weight the name of the parameter that it is, and whether it is stored turned. Raises `NotAlikeError`
    unless that is each parameter as it is: layers that share some would be repeated with the wrong ones."""
    found = {value: _source(value, module, name) for value, name in layer.weights.items()}
    if {name for name, _ in found.values()} != {name for name, _ in module.named_parameters()}:
        raise NotAlikeError("layers share weights, or have some that are folded into others")
    return found


def _source(value: onnx_ir.Value, module: torch.nn.Module, name: str) -> tuple[str, bool]:
    """That of one weight. What was turned is called after the node that reads it."""
    stored = np.empty(0) if value.const_value is None else value.const_value.numpy()
    known, owner = dict(module.named_parameters()), name.partition("/")[0]
    names = [name] if name in known else [found for found in known if found.rpartition(".")[0] == owner]
    for found in names:
        parameter = known[found].detach().numpy()
        is_plain, is_turned = np.array_equal(stored, parameter), np.array_equal(stored, parameter.T)
        if is_plain and is_turned and parameter.ndim > 1:
            raise NotAlikeError(f"{name} looks the same turned")
        if is_plain or is_turned:
            return found, not is_plain
    raise NotAlikeError(f"{name} is no parameter")


def _store(graph: onnx_ir.Model, value: onnx_ir.Value, parameter: torch.Tensor, *, is_turned: bool) -> None:
    """Let a value hold a parameter."""
    stored = parameter.detach()
    value.const_value = TorchTensor(stored.T if is_turned else stored, name=value.name)
    graph.graph.register_initializer(value)


def _copy(node: onnx_ir.Node, own: dict[onnx_ir.Value, onnx_ir.Value], number: int) -> onnx_ir.Node:
    """A node of another layer, whose outputs are noted."""
    copy = onnx_ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else own.get(value, value) for value in node.inputs],
        list(node.attributes.values()),
        overload=node.overload,
        num_outputs=len(node.outputs),
        version=node.version,
        name=_renamed(node.name, number),
    )
    for value, made in zip(node.outputs, copy.outputs, strict=True):
        kept = value.is_graph_output()
        made.name = _renamed(value.name, number) if kept else f"{value.name}.layer.{number}"
        made.shape, made.type = value.shape, value.type
        own[value] = made
    return copy
