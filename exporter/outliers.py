"""Channels that stand out: divided before they are rounded, and their weights multiplied, so that nothing else changes.

An activation is rounded by one scale for all its channels, so a single channel of great values makes the steps of all
others coarse. SmoothQuant (Xiao et al., ICML 2023) moves part of every channel's range into the weights; here only the
few channels that stand out move, so that the weights keep their own steps.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from exporter.edit import Editor, drop_unused_constants
from exporter.layers import PRODUCTS, Layer, find_layers

FEW = 0.003
"""Share of an activation's channels that may stand out, one at least: the peak of the next largest is what is usual.
More of them round no better (`docs/benchmarks.md`)."""

WORTHWHILE = 2.0
"""Times finer that steps must become, because the division takes time in every run."""


def divisors(peaks: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What brings channels of these largest magnitudes (channels,) to what is usual; `None` where it does not pay."""
    few = ceil(len(peaks) * FEW)
    usual = np.sort(peaks)[-1 - few] if few < len(peaks) else 0
    if not 0 < usual * WORTHWHILE <= peaks.max() or not np.isfinite(peaks.max()):
        return None
    return np.maximum(peaks / usual, 1).astype(np.float32)


def level(graph: onnx_ir.Model, peaks: Mapping[str, NDArray[np.float32]]) -> int:
    """Bring what products read to channels of usual size, in place; how many channels that took.

    `peaks` are the largest magnitudes of each channel, by the name of the value that is read. No weight may be shared
    by products of several inputs (`exporter.tie.untie`).
    """
    editor, count = Editor(graph), 0
    readers: defaultdict[str, list[Layer]] = defaultdict(list)
    for layer in find_layers(graph):
        if layer.kind in PRODUCTS:
            readers[str(layer.source.name)].append(layer)
    for name, layers in readers.items():
        found = divisors(peaks[name]) if name in peaks else None
        if found is not None:
            _divide(editor, layers, found)
            count += int((found > 1).sum())
    drop_unused_constants(graph)
    return count


def _divide(editor: Editor, layers: Sequence[Layer], by: NDArray[np.float32]) -> None:
    """Let layers of one input read it divided, with weights as many times as large."""
    first, source = layers[0].node, layers[0].source
    factors = editor.constant(f"{source.name}.factors", 1 / by)
    (level,) = editor.add(first, "Mul", [source, factors], [f"{source.name}.level"], dtype=onnx_ir.DataType.FLOAT)
    level.shape = source.shape
    for layer in layers:
        weight = layer.array * by[:, None]
        as_stored = weight.T if layer.is_turned else weight
        layer.node.replace_input_with(1, editor.constant(f"{layer.weight.name}.level", np.ascontiguousarray(as_stored)))
        layer.node.replace_input_with(0, level)
