"""The layers of a graph that hold most of its weights and do most of its work: what quantising is about."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx_ir
from numpy.typing import NDArray


class LayerKind(StrEnum):
    """The operators whose weights can be quantised. `Gemm` and `MatMul` are both matrix products."""

    MATMUL = "MatMul"
    GEMM = "Gemm"
    CONV = "Conv"
    GATHER = "Gather"


KINDS = {kind.value: kind for kind in LayerKind}
PRODUCTS = frozenset({LayerKind.MATMUL, LayerKind.GEMM})
WEIGHT_INPUT = {LayerKind.MATMUL: 1, LayerKind.GEMM: 1, LayerKind.CONV: 1, LayerKind.GATHER: 0}


@dataclass(frozen=True, slots=True)
class Layer:
    """One node with a constant fp32 weight; `name` is the module it comes from."""

    name: str
    kind: LayerKind
    node: onnx_ir.Node
    weight: onnx_ir.Value

    @property
    def source(self) -> onnx_ir.Value:
        """The activation that the weight is applied to."""
        value = self.node.inputs[0]
        if value is None:
            raise ValueError(f"{self.name} has no input")
        return value

    @property
    def elements(self) -> int:
        """Number of weights."""
        return int(np.prod(self.array.shape))

    @property
    def array(self) -> NDArray[np.float32]:
        """The weight; of a product always (inputs, outputs)."""
        tensor = self.weight.const_value
        if tensor is None:
            raise ValueError(f"{self.name} has no constant weight")
        array = np.asarray(tensor.numpy())
        return array.T if self.is_turned else array

    @property
    def is_turned(self) -> bool:
        """Whether the weight is stored as (outputs, inputs)."""
        return self.kind is LayerKind.GEMM and _flag(self.node, "transB")

    @property
    def macs_per_output(self) -> int:
        """Multiply-adds for each element of the output; 0 for a table that is only looked up."""
        shape = self.array.shape
        if self.kind is LayerKind.GATHER:
            return 0
        return int(np.prod(shape[1:])) if self.kind is LayerKind.CONV else int(shape[0])


def find_layers(graph: onnx_ir.Model) -> tuple[Layer, ...]:
    """Every layer of a graph in its order, with names that are unique."""
    found: dict[str, Layer] = {}
    for node in graph.graph:
        kind = KINDS.get(node.op_type)
        if kind is None or node.domain:
            continue
        weight = node.inputs[WEIGHT_INPUT[kind]]
        if weight is None or weight.const_value is None or weight.dtype is not onnx_ir.DataType.FLOAT:
            continue
        if _is_layer(node, kind, len(weight.const_value.shape)):
            name = layer_name(node)
            name = str(node.name) if name in found else name  # a module with two kinds of operator
            found[name] = Layer(name, kind, node, weight)
    return tuple(found.values())


def layer_name(node: onnx_ir.Node) -> str:
    """The module that a node comes from; with the operator where a module has several."""
    module, _, operator = str(node.name).rpartition("/")
    return module if module and operator == node.op_type else str(node.name)


def conv_tail(node: onnx_ir.Node) -> onnx_ir.Value:
    """Where the result of a convolution is rounded to bytes: after its `Relu`, if that alone reads it."""
    output = node.outputs[0]
    readers = [use.node for use in output.uses()]
    if len(readers) == 1 and readers[0].op_type == "Relu" and not output.is_graph_output():
        return readers[0].outputs[0]
    return output


def _flag(node: onnx_ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() != 0


def _is_layer(node: onnx_ir.Node, kind: LayerKind, rank: int) -> bool:
    attributes = node.attributes
    if kind is LayerKind.GATHER:
        return rank == 2 and attributes.get_int("axis", 0) == 0
    if kind is LayerKind.GEMM:
        plain = attributes.get_float("alpha", 1.0) == 1 and attributes.get_float("beta", 1.0) == 1
        return rank == 2 and plain and not _flag(node, "transA")
    return rank == 2 if kind is LayerKind.MATMUL else rank >= 3
