"""Weights in blocks of 4 or 8 bits, each block with a scale and a zero point; a table and a head that share a weight
share its blocks, so it is stored once.

The layouts are those of ONNX Runtime's contrib operators MatMulNBits and GatherBlockQuantized.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from exporter.edit import MICROSOFT, Editor, drop_unused_constants
from exporter.layers import Layer, LayerKind, find_layers

LEVEL = 4
"""accuracy_level: the kernel rounds activations to int8, each block of each token by itself, so that no row of a batch
depends on another."""


Stored = tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value]
"""Packed numbers, scales and zero points."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight of (outputs, inputs): packed uint8 (outputs, blocks, bytes), scales float32 (outputs, blocks), and zero
    points packed to uint8 (outputs, bytes)."""

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8]


def in_blocks(weight: NDArray[np.float32], bits: int, block: int) -> Blocks:
    """Round each block of a row of (outputs, inputs) to whole steps between its least and its greatest value.

    Zero is always a step, so the last block may be filled up with zeros.
    """
    outputs, inputs = weight.shape
    count, most = -(-inputs // block), 2**bits - 1
    if inputs % block:
        weight = np.pad(weight, ((0, 0), (0, count * block - inputs)))
    blocks = np.ascontiguousarray(weight, dtype=np.float32).reshape(outputs, count, block)
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    scales = ((high - low) / most).astype(np.float32)
    scales[scales == 0] = 1
    zeros = np.clip(np.rint(-low / scales), 0, most)
    whole = np.rint(blocks / scales[..., None])
    whole += zeros[..., None]
    packed = np.clip(whole, 0, most, out=whole).astype(np.uint8)
    return Blocks(_packed(packed, bits), scales, _packed(zeros.astype(np.uint8), bits))


def _packed(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Numbers of the last axis in as few bytes as they need, the even ones in the low halves."""
    if bits == 8:
        return numbers
    if numbers.shape[-1] % 2:
        numbers = np.concatenate([numbers, np.zeros_like(numbers[..., :1])], axis=-1)
    return np.asarray(numbers[..., 0::2] | (numbers[..., 1::2] << 4), dtype=np.uint8)


def block_quantized(graph: onnx_ir.Model, bits: int, block: int, head_bits: int | None = None) -> onnx_ir.Model:
    """Quantise every product and every table in place; what shares a table has `head_bits`."""
    editor = Editor(graph)
    shared: dict[str, Stored] = {}
    tables = {str(layer.weight.name) for layer in find_layers(graph) if layer.kind is LayerKind.GATHER}
    for node in list(graph.graph):
        if node.op_type != "MatMul" or node.domain:
            continue
        weight = node.inputs[1]
        turned = weight.producer() if weight is not None else None
        if turned is not None and turned.op_type == "Transpose":
            weight, array = turned.inputs[0], None
        if weight is None or weight.const_value is None:
            continue
        array = weight.const_value.numpy()
        array = array if turned is not None else array.T
        tied = str(weight.name) in tables
        wide = (head_bits or bits) if tied else bits
        values = _stored(editor, str(weight.name), array, wide, block)
        if tied:
            shared[str(weight.name)] = values
        (product,) = editor.add(
            node,
            "MatMulNBits",
            [node.inputs[0], *values],
            [f"{node.name}.product"],
            domain=MICROSOFT,
            dtype=onnx_ir.DataType.FLOAT,
            K=array.shape[1],
            N=array.shape[0],
            bits=wide,
            block_size=block,
            accuracy_level=LEVEL,
        )
        editor.replace(node, product)
        if turned is not None and not turned.outputs[0].uses():
            graph.graph.remove(turned, safe=True)
    for layer in find_layers(graph):
        if layer.kind is LayerKind.GATHER:
            _look_up(editor, layer, shared, head_bits or bits, block)
    drop_unused_constants(graph)
    return graph


def _stored(editor: Editor, name: str, array: NDArray[np.float32], bits: int, block: int) -> Stored:
    found = in_blocks(array, bits, block)
    return (
        editor.constant(f"{name}.int{bits}", found.packed),
        editor.constant(f"{name}.scale", found.scales),
        editor.constant(f"{name}.zero_point", found.zeros),
    )


def _look_up(editor: Editor, layer: Layer, shared: Mapping[str, Stored], bits: int, block: int) -> None:
    name = str(layer.weight.name)
    packed, scales, zeros = shared.get(name) or _stored(editor, name, layer.array, bits, block)
    rows = editor.constant(f"{name}.rows", np.array([layer.array.shape[0], -1], dtype=np.int64))
    (flat,) = editor.add(layer.node, "Reshape", [packed, rows], [f"{layer.name}.flat"], dtype=onnx_ir.DataType.UINT8)
    (found,) = editor.add(
        layer.node,
        "GatherBlockQuantized",
        [flat, layer.node.inputs[1], scales, zeros],
        [f"{layer.name}.rows"],
        domain=MICROSOFT,
        dtype=onnx_ir.DataType.FLOAT,
        gather_axis=0,
        quantize_axis=1,
        block_size=block,
        bits=bits,
    )
    editor.replace(layer.node, found)
