"""Lookups of rows that are stored in blocks, which OpenVINO's own translation takes at other shapes only."""

from typing import Any

import numpy as np
from openvino import opset13, opset15
from openvino.frontend.onnx import ConversionExtension

DATA, INDICES, SCALES, ZEROS = range(4)
LAST = -1


def block_lookups() -> ConversionExtension:
    """Translates `GatherBlockQuantized` of 4 or 8 bits: only the rows that are asked for are unpacked."""
    return ConversionExtension("GatherBlockQuantized", "com.microsoft", _rows)


def _rows(node: Any) -> list[Any]:
    """float32 (indices…, width) of a table of packed uint8 (rows, bytes), scales (rows, blocks) and zero points."""
    bits, block = (int(node.get_attribute(name)) for name in ("bits", "block_size"))
    scales = node.get_input(SCALES)
    blocks = int(scales.get_partial_shape()[1].get_length())

    def numbers(place: int, width: int) -> Any:
        rows = opset13.gather(node.get_input(place), node.get_input(INDICES), constant(0))
        return opset13.convert(_unpacked(rows, width) if bits == 4 else rows, "f32")

    whole = _split(numbers(DATA, blocks * block), (blocks, block))
    zeros = _split(numbers(ZEROS, blocks), (blocks, 1))
    steps = _split(opset13.gather(scales, node.get_input(INDICES), constant(0)), (blocks, 1))
    found = _split(opset13.multiply(opset13.subtract(whole, zeros), steps), (blocks * block,), instead_of=2)
    return list(found.outputs())


def constant(value: Any, kind: Any = np.int64) -> Any:
    """A constant node of OpenVINO's."""
    return opset13.constant(np.asarray(value, dtype=kind))


def _unpacked(rows: Any, width: int) -> Any:
    """Numbers of 4 bits, the even ones in the low halves of bytes: uint8 (…, width)."""
    low = opset13.bitwise_and(rows, constant(15, np.uint8))
    high = opset15.bitwise_right_shift(rows, constant(4, np.uint8))
    both = opset13.concat([opset13.unsqueeze(half, constant(LAST)) for half in (low, high)], LAST)
    flat = _split(both, (LAST,), instead_of=2)
    return opset13.slice(flat, constant([0]), constant([width]), constant([1]), constant([LAST]))


def _split(states: Any, sizes: tuple[int, ...], instead_of: int = 1) -> Any:
    """Another shape for the last axes."""
    kept = opset13.slice(opset13.shape_of(states), constant([0]), constant([-instead_of]), constant([1]), constant([0]))
    return opset13.reshape(states, opset13.concat([kept, constant(sizes)], 0), special_zero=False)
