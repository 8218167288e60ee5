"""int8: weights to signed bytes, a scale for each output; activations to bytes, scaled for each batch or beforehand.

Formulas are those of the ONNX operators DynamicQuantizeLinear, MatMulInteger, QuantizeLinear and DequantizeLinear. The
node patterns are the ones that ONNX Runtime fuses into its integer kernels.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from exporter.edit import Editor, drop_unused_constants, maker
from exporter.layers import PRODUCTS, Layer, LayerKind, conv_tail, find_layers
from exporter.options import Target, Weights

DYNAMIC_KINDS = PRODUCTS | {LayerKind.GATHER}
STATIC_KINDS = DYNAMIC_KINDS | {LayerKind.CONV}
LARGEST_BIAS = 2.0**30
"""In steps, of a convolution's bias: half of what int32 holds, so that sums have room."""


@dataclass(frozen=True, slots=True)
class Range:
    """The least and greatest value of an activation."""

    low: float
    high: float


def int8_dynamic(
    graph: onnx_ir.Model,
    layers: Collection[str],
    target: Target = Target.X86,
    weights: Weights = Weights.SIGNED,
) -> onnx_ir.Model:
    """Quantise the named layers in place; activations get a scale for each batch when the graph runs."""
    editor = Editor(graph)
    quantized: dict[int, tuple[onnx_ir.Value, ...]] = {}
    for layer in without_tables(editor, layers):
        source = layer.source
        if id(source) not in quantized:
            names = [f"{source.name}.{part}" for part in ("int8", "scale", "zero_point")]
            quantized[id(source)] = editor.add(layer.node, "DynamicQuantizeLinear", [source], names)
        activation, scale, zero_point = quantized[id(source)]
        whole, weight_scale = quantize_columns(layer.array, target.weight_limit)
        stored, zeros = _stored(whole, weight_scale.shape, weights)
        weight = editor.constant(f"{layer.weight.name}.int8", stored)
        weight_scales = editor.constant(f"{layer.weight.name}.scale", weight_scale)
        weight_zero = editor.constant(f"{layer.weight.name}.zero_point", zeros)
        node, name = layer.node, layer.name
        (product,) = editor.add(node, "MatMulInteger", [activation, weight, zero_point, weight_zero], [f"{name}.int32"])
        (number,) = editor.add(node, "Cast", [product], [f"{name}.float"], to=onnx_ir.DataType.FLOAT)
        (scales,) = editor.add(node, "Mul", [scale, weight_scales], [f"{name}.scales"])
        (result,) = editor.add(node, "Mul", [number, scales], [f"{name}.product"], dtype=onnx_ir.DataType.FLOAT)
        editor.replace(node, with_bias(editor, layer, result))
    drop_unused_constants(graph)
    return graph


def int8_static(
    graph: onnx_ir.Model,
    layers: Collection[str],
    ranges: Mapping[str, Range],
    target: Target = Target.X86,
    weights: Weights = Weights.SIGNED,
) -> onnx_ir.Model:
    """Quantise the named layers in place; `ranges` are those of their inputs, by value name."""
    editor = Editor(graph)
    quantized: dict[int, tuple[onnx_ir.Value, float]] = {}
    for layer in without_tables(editor, layers):
        node, source = layer.node, layer.source
        if id(source) not in quantized:
            quantized[id(source)] = _quantize_activation(editor, node, source, ranges[str(source.name)], target)
        activation, scale = quantized[id(source)]
        if layer.kind is LayerKind.CONV:
            tail = conv_tail(_quantize_conv(editor, layer, activation, scale, target, weights))
            if not tail.is_graph_output():
                number, step = _quantize_result(editor, tail, ranges[str(tail.name)], target)
                quantized[id(number)] = (number, step)
            continue
        whole, weight_scale = quantize_columns(layer.array, target.weight_limit)
        stored, zeros = _stored(whole, weight_scale.shape, weights)
        weight = _dequantized(editor, node, str(layer.weight.name), stored, weight_scale, zeros, axis=1)
        (result,) = editor.add(
            node, "MatMul", [activation, weight], [f"{layer.name}.product"], dtype=onnx_ir.DataType.FLOAT
        )
        editor.replace(node, with_bias(editor, layer, result))
    drop_unused_constants(graph)
    return graph


def without_tables(editor: Editor, names: Collection[str]) -> Iterator[Layer]:
    """The named layers in the graph's order; tables are quantised on the way, as every precision has them."""
    for layer in find_layers(editor.model):
        if layer.name in names and layer.kind is LayerKind.GATHER:
            quantize_table(editor, layer)
        elif layer.name in names:
            yield layer


def quantize_columns(
    weight: NDArray[np.float32], limit: int = 127, least: NDArray[np.float64] | float = 0.0
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight (inputs, outputs) as int8 and one float32 scale, `least` at least, for each output, about 0."""
    scale = np.maximum(np.abs(weight).max(axis=0) / limit, least)
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.clip(np.rint(weight / scale), -limit, limit).astype(np.int8), scale


def quantize_table(editor: Editor, layer: Layer) -> None:
    """Replace a lookup by one of int8 rows, each with a scale of its own."""
    node, name = layer.node, str(layer.weight.name)
    whole, scale = quantize_columns(layer.array.T)
    table = editor.constant(f"{name}.int8", whole.T)
    scales = editor.constant(f"{name}.scale", scale[:, None])
    positions = node.inputs[1]
    (rows,) = editor.add(node, "Gather", [table, positions], [f"{layer.name}.int8"], axis=0)
    (steps,) = editor.add(node, "Gather", [scales, positions], [f"{layer.name}.scale"], axis=0)
    (numbers,) = editor.add(node, "Cast", [rows], [f"{layer.name}.float"], to=onnx_ir.DataType.FLOAT)
    (result,) = editor.add(node, "Mul", [numbers, steps], [f"{layer.name}.rows"], dtype=onnx_ir.DataType.FLOAT)
    editor.replace(node, result)


def with_bias(editor: Editor, layer: Layer, product: onnx_ir.Value) -> onnx_ir.Value:
    """The product plus what a `Gemm` adds."""
    bias = layer.node.inputs[2] if layer.kind is LayerKind.GEMM and len(layer.node.inputs) > 2 else None
    if bias is None:
        return product
    return editor.add(layer.node, "Add", [product, bias], [f"{layer.name}.sum"], dtype=onnx_ir.DataType.FLOAT)[0]


def _quantize_result(editor: Editor, result: onnx_ir.Value, span: Range, target: Target) -> tuple[onnx_ir.Value, float]:
    """The same of a convolution's result, for all that read it: only so does its integer kernel run."""
    readers = [(use.node, use.idx) for use in result.uses()]
    number, scale = _quantize_activation(editor, maker(result), result, span, target, after=True)
    for reader, place in readers:
        reader.replace_input_with(place, number)
    return number, scale


def _quantize_activation(
    editor: Editor, place: onnx_ir.Node, source: onnx_ir.Value, span: Range, target: Target, *, after: bool = False
) -> tuple[onnx_ir.Value, float]:
    """The activation rounded to bytes and back, and its scale; 0 is always exact, as padding needs it."""
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    zero_point: NDArray[Any]
    if target.signed_activations:
        high = max(high, -low)
        scale, zero_point = np.float32(high / 127 or 1), np.zeros((), dtype=np.int8)
    else:
        scale = np.float32((high - low) / 255 or 1)
        zero_point = np.asarray(np.clip(np.rint(-low / scale), 0, 255)).astype(np.uint8)
    scales = editor.constant(f"{source.name}.scale", np.asarray(scale))
    zero = editor.constant(f"{source.name}.zero_point", zero_point)
    (whole,) = editor.add(place, "QuantizeLinear", [source, scales, zero], [f"{source.name}.int8"], after=after)
    (number,) = editor.add(
        maker(whole),
        "DequantizeLinear",
        [whole, scales, zero],
        [f"{source.name}.float"],
        dtype=onnx_ir.DataType.FLOAT,
        after=True,
    )
    return number, float(scale)


def _stored(
    whole: NDArray[np.int8], shape: tuple[int, ...], weights: Weights
) -> tuple[NDArray[np.int8] | NDArray[np.uint8], NDArray[np.int8] | NDArray[np.uint8]]:
    """Whole numbers as they stand in the file, and as many zero points as there are scales."""
    if weights is Weights.SIGNED:
        return whole, np.zeros(shape, dtype=np.int8)
    return (whole.astype(np.int16) + 128).astype(np.uint8), np.full(shape, 128, dtype=np.uint8)


def _dequantized(
    editor: Editor,
    before: onnx_ir.Node,
    name: str,
    whole: NDArray[Any],
    scale: NDArray[np.float32],
    zeros: NDArray[Any],
    *,
    axis: int,
) -> onnx_ir.Value:
    weight = editor.constant(f"{name}.int8", whole)
    scales = editor.constant(f"{name}.scale", scale)
    zero = editor.constant(f"{name}.zero_point", zeros)
    return editor.add(
        before, "DequantizeLinear", [weight, scales, zero], [f"{name}.float"], dtype=onnx_ir.DataType.FLOAT, axis=axis
    )[0]


def _quantize_conv(
    editor: Editor, layer: Layer, activation: onnx_ir.Value, scale: float, target: Target, weights: Weights
) -> onnx_ir.Node:
    """Replace a convolution by one of rounded numbers, and return that."""
    node, name = layer.node, str(layer.weight.name)
    filters = layer.array
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    added = None if bias is None or bias.const_value is None else bias.const_value.numpy().astype(np.float64)
    least = 0.0 if added is None else np.abs(added) / (scale * LARGEST_BIAS)  # a tiny filter's steps may be too fine
    flat, weight_scale = quantize_columns(filters.reshape(filters.shape[0], -1).T, target.weight_limit, least)
    stored, zeros = _stored(flat.T.reshape(filters.shape), weight_scale.shape, weights)
    weight = _dequantized(editor, node, name, stored, weight_scale, zeros, axis=0)
    inputs: list[onnx_ir.Value | None] = [activation, weight]
    if bias is not None and added is not None:
        steps = (scale * weight_scale).astype(np.float32)
        whole = np.rint(added / steps).astype(np.int32)
        inputs.append(_dequantized(editor, node, str(bias.name), whole, steps, np.zeros_like(whole), axis=0))
    elif bias is not None:
        inputs.append(bias)
    attributes = {key: attribute.value for key, attribute in node.attributes.items()}
    (result,) = editor.add(node, "Conv", inputs, [f"{layer.name}.product"], dtype=onnx_ir.DataType.FLOAT, **attributes)
    editor.replace(node, result)
    return maker(result)
