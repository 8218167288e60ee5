"""Facts about a graph file, for `variant.json`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from artifact.variant import TensorSpec

EIGHT_BITS_OR_FEWER = frozenset({"int8", "uint8", "int4", "uint4"})


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a graph is made of. `weight_elements` counts the elements of constant tensors by number type."""

    opset: int
    ir_version: int
    domains: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: dict[str, int]
    weight_elements: dict[str, int]

    @property
    def nodes(self) -> int:
        return sum(self.operators.values())

    @property
    def quantized_weights_fraction(self) -> float:
        """Share of constant elements held in 8 bits or fewer."""
        small = sum(count for kind, count in self.weight_elements.items() if kind in EIGHT_BITS_OR_FEWER)
        return small / max(1, sum(self.weight_elements.values()))


def inspect_graph(path: Path) -> GraphFacts:
    """Check a graph file with onnx's own checker and read its facts."""
    onnx.checker.check_model(str(path))
    model = onnx.load(str(path), load_external_data=False)
    elements: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        count = 1
        for size in tensor.dims:
            count *= size
        elements[_type_name(tensor.data_type)] += count
    opsets = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    return GraphFacts(
        opset=opsets["ai.onnx"],
        ir_version=model.ir_version,
        domains=tuple(sorted(opsets)),
        inputs=tuple(_spec(value) for value in model.graph.input),
        outputs=tuple(_spec(value) for value in model.graph.output),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        weight_elements=dict(sorted(elements.items())),
    )


def _type_name(code: int) -> str:
    name = str(onnx.TensorProto.DataType.Name(code)).lower()
    return "float32" if name == "float" else name


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=_type_name(tensor.elem_type), shape=shape)
