"""int4: weights in blocks of 4-bit numbers, each block with its own scale; arithmetic stays as it was.

The layout is that of ONNX Runtime's contrib operator MatMulNBits.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from exporter.edit import MICROSOFT, Editor, drop_unused_constants
from exporter.integer import with_bias, without_tables
from exporter.layers import PRODUCTS, LayerKind, layer_name

KINDS = PRODUCTS | {LayerKind.GATHER}
"""Products become 4-bit; tables, which that operator does not know, 8-bit rows."""

BITS = 4


def int4(graph: onnx_ir.Model, layers: Collection[str], *, block: int = 32, accuracy_level: int = 4) -> onnx_ir.Model:
    """Quantise the named layers in place. `accuracy_level` 4 lets the kernel round activations to int8, 0 does not."""
    editor = Editor(graph)
    for layer in without_tables(editor, layers):
        weight, name = layer.array, str(layer.weight.name)
        packed, scales = quantize_blocks(weight, block)
        stored = editor.constant(f"{name}.int4", packed), editor.constant(f"{name}.scale", scales)
        given, made = [layer.source, *stored], f"{layer_name(layer.node)}.product"
        shape = weight.shape[0], weight.shape[1]
        product = block_product(
            editor, layer.node, made, given, shape, bits=BITS, block=block, accuracy_level=accuracy_level
        )
        editor.replace(layer.node, with_bias(editor, layer, product))
    drop_unused_constants(graph)
    return graph


def block_product(
    editor: Editor,
    node: onnx_ir.Node,
    name: str,
    given: Sequence[onnx_ir.Value | None],
    shape: tuple[int, int],
    *,
    bits: int,
    block: int,
    accuracy_level: int,
) -> onnx_ir.Value:
    """A product called `name` before `node`, of `given` inputs: what is multiplied, then packed blocks, scales and
    perhaps zero points of a weight of this shape (inputs, outputs)."""
    (product,) = editor.add(
        node,
        "MatMulNBits",
        list(given),
        [name],
        domain=MICROSOFT,
        dtype=onnx_ir.DataType.FLOAT,
        K=shape[0],
        N=shape[1],
        bits=bits,
        block_size=block,
        accuracy_level=accuracy_level,
    )
    return product


def quantize_blocks(weight: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A weight (inputs, outputs) as packed 4-bit blocks, uint8 (outputs, blocks, block/2), and float32 scales.

    Numbers are 0 to 15 about 8, the even position in the low half of its byte; the last block is filled with zeros.
    The scale makes the value of largest magnitude exactly -8 steps, as ONNX Runtime's own symmetric rounding does.
    """
    inputs, outputs = weight.shape
    blocks = -(-inputs // block)
    padded = np.zeros((outputs, blocks * block), dtype=np.float32)
    padded[:, :inputs] = weight.T
    padded = padded.reshape(outputs, blocks, block)
    extreme = np.take_along_axis(padded, np.abs(padded).argmax(axis=-1, keepdims=True), axis=-1)
    scale = (extreme / -8).astype(np.float32)
    safe = np.where(scale == 0, 1, scale)
    whole = np.clip(np.rint(padded / safe) + 8, 0, 15).astype(np.uint8)
    packed = whole[..., 0::2] | (whole[..., 1::2] << 4)
    return packed, scale[..., 0].reshape(-1)
