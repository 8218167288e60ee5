"""Facts about a graph file, for `variant.json`, read from the file itself."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from artifact.precision import Precision
from artifact.variant import TensorSpec
from exporter.edit import MICROSOFT

EIGHT_BITS_OR_FEWER = frozenset({"int8", "uint8", "int4", "uint4"})
TYPES = {
    Precision.FP32: frozenset({"float32"}),
    Precision.FP16: frozenset({"float16"}),
    Precision.BF16: frozenset({"bfloat16"}),
    Precision.INT8_DYNAMIC: EIGHT_BITS_OR_FEWER,
    Precision.INT8_STATIC: EIGHT_BITS_OR_FEWER,
    Precision.INT4: EIGHT_BITS_OR_FEWER,
}
"""Number types of weights that make a file what its precision says."""

FIRST_WITH_OPSET = {18: "1.15", 19: "1.16", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23"}
"""First onnxruntime for Python 3.11 that was seen to run each opset (MiniLM by `benchmarks.oldest_onnxruntime`)."""

FIRST_WITH_HALF = "1.17"
"""Before it, onnxruntime builds a half LayerNormalization out of operators that it then refuses."""

FIRST_WITH_CONTRIB = {
    "BiasGelu": "1.3",
    "FusedMatMul": "1.8",
    "MatMulNBits": "1.17",
    "MultiHeadAttention": "1.22",
    "SkipLayerNormalization": "1.3",
}
"""First onnxruntime with each of its own operators as an export uses them; of others it is not known. Attention is as
it was seen: to 1.19 the CPU kernel refuses the mask, 1.20 crashes in fp16, and where heads share a bias 1.21 answers
wrongly in every row but the first."""


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a graph is made of. `contrib` are ONNX Runtime's own operators among `operators`; `weight_elements` counts
    the elements of constant tensors by number type."""

    opset: int
    ir_version: int
    domains: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: dict[str, int]
    contrib: frozenset[str]
    weight_elements: dict[str, int]

    @property
    def nodes(self) -> int:
        return sum(self.operators.values())

    def share_of(self, types: frozenset[str]) -> float:
        """Share of the weights that are of these number types."""
        return sum(self.weight_elements.get(kind, 0) for kind in types) / max(1, sum(self.weight_elements.values()))

    def is_of(self, precision: Precision) -> bool:
        """Whether a file is what its name says: some weights of its type, and for int4 a product in 4 bits."""
        named = precision is not Precision.INT4 or "MatMulNBits" in self.operators
        return named and self.share_of(TYPES[precision]) > 0

    @property
    def minimum_onnxruntime(self) -> str:
        """First onnxruntime that knows the opset and every operator; `unknown` for what the tables lack."""
        found = [FIRST_WITH_OPSET.get(self.opset, "unknown")]
        found += [FIRST_WITH_HALF] if self.share_of(TYPES[Precision.FP16] | TYPES[Precision.BF16]) else []
        found += [FIRST_WITH_CONTRIB.get(name, "unknown") for name in self.contrib]
        return newest(found)


def newest(versions: Iterable[str]) -> str:
    """The greatest of versions of onnxruntime; one that is `unknown` is greater than all."""
    return max(versions, key=lambda text: (text == "unknown", *map(int, text.replace("unknown", "0").split("."))))


def inspect_graph(path: Path) -> GraphFacts:
    """Check a graph file with onnx's own checker and read its facts."""
    model = onnx.load(str(path), load_external_data=False)
    if not any(item.domain == MICROSOFT for item in model.opset_import):
        onnx.checker.check_model(str(path), full_check=False)
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
        contrib=frozenset(node.op_type for node in model.graph.node if node.domain == MICROSOFT),
        weight_elements=dict(sorted(elements.items())),
    )


def _type_name(code: int) -> str:
    name = str(onnx.TensorProto.DataType.Name(code)).lower()
    return "float32" if name == "float" else name


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=_type_name(tensor.elem_type), shape=shape)
