"""fp16 and bf16: a mixed graph whose inputs and outputs stay fp32, and the fp32 graph that shows what it will compute.

Which operators take half numbers is read from the ONNX operator schemas. Which nodes must stay in fp32 is decided from
the values they met on real inputs.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from artifact.variant import Kept
from errors import GateFailed
from exporter.edit import MICROSOFT, Editor, drop_unused_constants, maker

FLOAT, BFLOAT16 = onnx_ir.DataType.FLOAT, onnx_ir.DataType.BFLOAT16
NUMPY = {onnx_ir.DataType.FLOAT16: np.dtype(np.float16), BFLOAT16: np.dtype(ml_dtypes.bfloat16)}
LARGEST_FP16 = 65504.0
LARGEST = {onnx_ir.DataType.FLOAT16: LARGEST_FP16, BFLOAT16: (2 - 2**-7) * 2.0**127}
VANISHING_FP16 = 2.0**-25
"""The largest number that fp16 rounds to 0."""

HEADROOM = 2.0
"""Other inputs may give values this much larger than the largest seen."""

NORMS = frozenset(
    ["BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"]
)

MOVES = frozenset(
    [
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators whose outputs are values of their inputs, so that they round nothing."""

MAKERS = frozenset(
    [
        "Bernoulli",
        "Constant",
        "ConstantOfShape",
        "EyeLike",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ]
)
"""Operators whose number type follows from no input; of their attributes only `value` is converted."""


BF16_KERNELS = (
    frozenset(
        [
            "Abs",
            "Add",
            "AveragePool",
            "Cast",
            "Conv",
            "Cos",
            "Div",
            "Erf",
            "Exp",
            "Gelu",
            "Gemm",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "HardSigmoid",
            "HardSwish",
            "LayerNormalization",
            "MatMul",
            "Max",
            "MaxPool",
            "Min",
            "Mul",
            "Neg",
            "RMSNormalization",
            "ReduceMean",
            "ReduceSum",
            "Relu",
            "Shape",
            "Sigmoid",
            "Sign",
            "Sin",
            "Size",
            "Softmax",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Sub",
            "Sum",
            "Tanh",
            "Where",
        ]
    )
    | (MOVES - {"Pad"})
    | MAKERS
)
"""ONNX's operators that ONNX Runtime computes in bf16: on CUDA alone, and there not every one that the schemas allow. A
graph with another (`Less`, `Pow`) does not load. From the kernels compiled into onnxruntime-gpu 1.31.1."""

ATTENTIONS = frozenset(["GroupQueryAttention", "MultiHeadAttention"])
"""ONNX Runtime's own operators whose numbers are all of one type, which may be fp16 or bf16: on CUDA both, on the CPU
fp16 alone. They add up in fp32 (its `docs/OperatorKernels.md`; onnx knows no schema of them)."""


@dataclass(frozen=True, slots=True)
class WeightRange:
    """How many weights a half number cannot hold: above its largest, or rounded to 0 although they are not."""

    overflowing: int
    vanishing: int


def nodes_to_keep(graph: onnx_ir.Model, largest: Mapping[str, float]) -> tuple[Kept, ...]:
    """The nodes that read or give a value which fp16 might not hold, with `HEADROOM` over the `largest` seen."""
    limit = LARGEST_FP16 / HEADROOM
    kept = []
    for node in graph.graph:
        for value in (*node.inputs, *node.outputs):
            if value is None or value.dtype not in (None, FLOAT):
                continue
            constant = value.const_value
            found = _largest_weight(constant) if constant is not None else largest.get(str(value.name), 0.0)
            bound = LARGEST_FP16 if constant is not None else limit
            if found > bound:
                kept.append(Kept(name=str(node.name), why=f"{value.name} reaches {found:.3g}"))
                break
    return tuple(kept)


def sensitive(graph: onnx_ir.Model) -> tuple[Kept, ...]:
    """The nodes where rounding shows most: norms, which PyTorch's autocast keeps in fp32 too, and the last layers."""
    found = []
    for node in graph.graph:
        if node.op_type in NORMS:
            found.append(Kept(name=str(node.name), why="a norm, and without it an answer changes"))
        elif any(value.is_graph_output() for value in node.outputs):
            found.append(Kept(name=str(node.name), why="it gives an output, and without it an answer changes"))
    return tuple(found)


def places(graph: onnx_ir.Model) -> tuple[Kept, ...]:
    """The nodes that work out places and angles: all that a sine, a cosine or a whole number is made of.

    fp16 counts to 2,048 and bf16 to 256 without gaps, and texts are longer.
    """
    found = [node for node in graph.graph if node.op_type in ("Sin", "Cos") or _counts(node)]
    kept: dict[str, Kept] = {}
    while found:
        node = found.pop()
        if node.name in kept:
            continue
        kept[str(node.name)] = Kept(name=str(node.name), why="it works out places or angles of a text")
        found += [made for value in node.inputs if value and value.dtype is FLOAT and (made := value.producer())]
    return tuple(kept.values())


def _counts(node: onnx_ir.Node) -> bool:
    """Whether a node makes whole numbers of others."""
    source, made = node.inputs[0] if node.op_type == "Cast" else None, node.outputs[0].dtype
    return source is not None and source.dtype is FLOAT and made is not None and made.is_integer()


def unsupported(graph: onnx_ir.Model, dtype: onnx_ir.DataType) -> tuple[Kept, ...]:
    """The operators of a graph that give fp32 values and are not computed on `dtype`, so that they stay in fp32."""
    opset = graph.opset_imports[""]
    counts = Counter(
        node.op_type
        for node in graph.graph
        if any(value.dtype is FLOAT for value in node.outputs) and not _can_take(node, opset, dtype)
    )
    name = dtype.name.lower()
    return tuple(
        Kept(name=f"{count} {operator}", why=f"it is not computed in {name} (opset {opset})")
        for operator, count in sorted(counts.items())
    )


def weight_range(graph: onnx_ir.Model) -> WeightRange:
    """Count the fp32 weights that fp16 cannot hold."""
    overflowing = vanishing = 0
    for value in graph.graph.initializers.values():
        if value.dtype is FLOAT and value.const_value is not None and len(value.const_value.shape) > 1:
            sizes = np.abs(value.const_value.numpy())
            overflowing += int((sizes > LARGEST_FP16).sum())
            vanishing += int(((sizes <= VANISHING_FP16) & (sizes > 0)).sum())
    return WeightRange(overflowing, vanishing)


def to_half(
    graph: onnx_ir.Model, dtype: onnx_ir.DataType, keep: Collection[str], states: Collection[str] = ()
) -> onnx_ir.Model:
    """Turn a graph in place into half precision, but for the nodes named in `keep`; casts stand only at borders.

    Of its inputs and outputs those named in `states` become half too, such as a cache; all others stay as they are.
    Raises `GateFailed` for a graph with branches or loops, which are not converted.
    """
    if any(item.type is onnx_ir.AttributeType.GRAPH for node in graph.graph for item in node.attributes.values()):
        raise GateFailed("the graph has branches or loops, and those are not converted to half precision")
    for given in graph.graph.inputs:
        if given.name in states:
            given.type = onnx_ir.TensorType(dtype)
    borders = _Borders(Editor(graph))
    opset = graph.opset_imports[""]
    for node in list(graph.graph):
        in_half = node.name not in keep and _can_take(node, opset, dtype)
        fixed = _fp32_inputs(node.op_type, node.domain, opset) if in_half else frozenset[int]()
        for place, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FLOAT, dtype):
                wanted = dtype if in_half and place not in fixed else FLOAT
                node.replace_input_with(place, borders.crossed(value, wanted, node))
        if in_half:
            _retype(node, FLOAT, dtype)
    for place, output in enumerate(graph.graph.outputs):
        wanted = dtype if output.name in states else FLOAT
        if output.dtype in (FLOAT, dtype) and output.dtype is not wanted:
            graph.graph.outputs[place] = _recast(graph, output, wanted)
    drop_unused_constants(graph)
    return graph


class _Borders:
    """Values in another number type than they are computed in, each cast once."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._crossed: dict[tuple[int, onnx_ir.DataType], onnx_ir.Value] = {}

    def crossed(self, value: onnx_ir.Value, wanted: onnx_ir.DataType, reader: onnx_ir.Node) -> onnx_ir.Value:
        """`value` as `wanted`, for `reader` and all that come after it."""
        key = (id(value), wanted)
        if value.dtype is wanted:
            return value
        if key not in self._crossed:
            name = f"{value.name}.{wanted.name.lower()}"
            if value.const_value is not None:
                found = self._editor.constant(name, _rounded(value.const_value.numpy(), wanted), wanted)
            else:
                (found,) = self._editor.add(reader, "Cast", [value], [name], dtype=wanted, to=wanted)
                found.shape = value.shape
            self._crossed[key] = found
        return self._crossed[key]


def _recast(graph: onnx_ir.Model, output: onnx_ir.Value, wanted: onnx_ir.DataType) -> onnx_ir.Value:
    """An output of another number type, fp32 or half, under the name of the one there is."""
    name, (computed, given) = str(output.name), ("half", "wide") if wanted is FLOAT else ("wide", "half")
    output.name = f"{name}.{computed}"
    cast = onnx_ir.node("Cast", [output], {"to": wanted}, name=f"{name}.{given}/Cast")
    found = cast.outputs[0]
    found.name, found.shape, found.type = name, output.shape, onnx_ir.TensorType(wanted)
    graph.graph.append(cast)
    return found


def emulate(graph: onnx_ir.Model, dtype: onnx_ir.DataType) -> onnx_ir.Model:
    """Turn a half graph in place into fp32 with each half result rounded as a half kernel would round it.

    ONNX Runtime's CPU provider computes half graphs in fp32 and removes the casts between, so on a CPU the file itself
    hides every overflow. Here sums are kept in fp32, as tensor cores keep them, and each result is rounded. Inputs and
    outputs that are half become fp32 too; what they hold is rounded.
    """
    editor = Editor(graph)
    for given in graph.graph.inputs:
        if given.dtype is dtype:
            given.type = onnx_ir.TensorType(FLOAT)
    for name, value in list(graph.graph.initializers.items()):
        if value.dtype is dtype and value.const_value is not None:
            wide = editor.constant(f"{name}.wide", value.const_value.numpy().astype(np.float32))
            value.replace_all_uses_with(wide)
    for node in list(graph.graph):
        halves = [output for output in node.outputs if output.dtype is dtype]
        _retype(node, dtype, FLOAT)
        for output in halves if node.op_type not in MOVES else ():
            users = list(output.uses())
            (narrow,) = editor.add(node, "Cast", [output], [f"{output.name}.narrow"], dtype=dtype, after=True, to=dtype)
            (rounded,) = editor.add(
                maker(narrow), "Cast", [narrow], [f"{output.name}.rounded"], dtype=FLOAT, after=True, to=FLOAT
            )
            for use in users:
                use.node.replace_input_with(use.idx, rounded)
            if output.is_graph_output():
                output.name, rounded.name, rounded.shape = f"{output.name}.computed", output.name, output.shape
                graph.graph.outputs[graph.graph.outputs.index(output)] = rounded
    drop_unused_constants(graph)
    return graph


def _rounded(array: NDArray[np.float32], dtype: onnx_ir.DataType) -> NDArray[np.generic]:
    """To half; what masks with the least fp32 number leaves room for a score below 0, and does not become -inf."""
    if dtype not in NUMPY:
        return array.astype(np.float32)
    largest = np.where(np.abs(array) < MASKING, LARGEST[dtype], LARGEST[dtype] / HEADROOM)
    return np.clip(array, -largest, largest).astype(NUMPY[dtype])


def _largest_weight(tensor: onnx_ir.TensorProtocol) -> float:
    """Largest magnitude, masks left out."""
    array = np.abs(np.asarray(tensor.numpy(), dtype=np.float32))
    array = array[array < MASKING]
    return float(array.max()) if array.size else 0.0


MASKING = 1e37
"""Magnitudes from here on are no values but stand for infinity, as in attention masks."""


def _retype(node: onnx_ir.Node, old: onnx_ir.DataType, new: onnx_ir.DataType) -> None:
    """Let a node give `new` wherever it gave `old`."""
    for output in node.outputs:
        if output.dtype is old:
            output.type = onnx_ir.TensorType(new)
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == old:
        node.attributes["to"] = onnx_ir.AttrInt64("to", new)
    if "value" in node.attributes and node.op_type in ("Constant", "ConstantOfShape"):
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype is old:
            array = tensor.numpy().astype(np.float32)
            node.attributes["value"] = onnx_ir.AttrTensor("value", onnx_ir.Tensor(_rounded(array, new), dtype=new))


@cache
def _schema(op: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None


def _type_name(dtype: onnx_ir.DataType) -> str:
    return f"tensor({'float' if dtype is FLOAT else dtype.name.lower()})"


def _can_take(node: onnx_ir.Node, opset: int, dtype: onnx_ir.DataType) -> bool:
    """Whether a node may be computed on `dtype`: what it does not use of its operator does not matter."""
    if node.op_type in MAKERS and "value" not in node.attributes:
        return False
    if node.domain == MICROSOFT:
        return node.op_type in ATTENTIONS
    if dtype is BFLOAT16 and node.domain == "" and node.op_type not in BF16_KERNELS:
        return False
    used = [place for place, output in enumerate(node.outputs) if output.uses() or output.is_graph_output()]
    return _takes(node.op_type, node.domain, opset, dtype, len(node.inputs), max(used, default=0) + 1)


@cache
def _takes(op: str, domain: str, opset: int, dtype: onnx_ir.DataType, inputs: int, outputs: int) -> bool:
    """Whether every one of an operator's first inputs and outputs that may be fp32, and is not only fp32, may be
    `dtype`."""
    schema = _schema(op, domain, opset)
    if schema is None:
        return False
    formals = (*schema.inputs[:inputs], *schema.outputs[:outputs])
    flexible = [formal.types for formal in formals if _type_name(FLOAT) in formal.types]
    flexible = [types for types in flexible if types != {_type_name(FLOAT)}]
    return bool(flexible) and all(_type_name(dtype) in types for types in flexible)


@cache
def _fp32_inputs(op: str, domain: str, opset: int) -> frozenset[int]:
    """Places of inputs that are fp32 whatever the others are, such as the scales of `Resize`."""
    schema = _schema(op, domain, opset)
    formals = schema.inputs if schema else ()
    return frozenset(place for place, formal in enumerate(formals) if formal.types == {_type_name(FLOAT)})
