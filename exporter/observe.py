"""What a graph computes on real inputs: the largest value of every tensor, and how values are spread before layers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from exporter.edit import Editor, maker
from exporter.half import FLOAT, MASKING
from exporter.layers import PRODUCTS, Layer, LayerKind, conv_tail, find_layers
from exporter.sessions import open_graph
from exporter.subject import Batch

BINS = 2048


@dataclass(slots=True)
class Spread:
    """A histogram over [-limit, limit] that widens by doubling, and the exact ends. Padded positions do not count."""

    low: float = np.inf
    high: float = -np.inf
    limit: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(low), abs(high))
        if self.limit == 0:
            self.limit = largest or 1e-12
        while largest > self.limit:
            middle = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, dtype=np.int64)
            self.counts[BINS // 4 : 3 * BINS // 4] = middle
            self.limit *= 2
        self.counts += np.histogram(values, bins=BINS, range=(-self.limit, self.limit))[0]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bin edges, (BINS + 1,)."""
        return np.linspace(-self.limit, self.limit, BINS + 1)


def largest_values(graph: onnx_ir.Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Largest magnitude of every fp32 tensor that a node computes, by its name.

    What only masks is left out, and so is what is no number in fp32 either.
    """
    graph = graph.clone()
    editor = Editor(graph)
    masking = editor.constant("masking", np.asarray(MASKING, dtype=np.float32))
    nothing = editor.constant("nothing", np.zeros((), dtype=np.float32))
    watched: dict[str, str] = {}
    for node in list(graph.graph):
        for value in node.outputs:
            if value.dtype is not FLOAT:
                continue
            (size,) = editor.add(node, "Abs", [value], [f"{value.name}.size"], after=True)
            (real,) = editor.add(maker(size), "Less", [size, masking], [f"{value.name}.real"], after=True)
            (kept,) = editor.add(maker(real), "Where", [real, size, nothing], [f"{value.name}.kept"], after=True)
            (largest,) = editor.add(
                maker(kept), "ReduceMax", [kept], [f"{value.name}.largest"], dtype=FLOAT, after=True, keepdims=0
            )
            watched[_as_output(graph, largest)] = str(value.name)
    session = open_graph(graph)
    found = dict.fromkeys(watched.values(), 0.0)
    for batch in batches:
        for name, here in zip(watched.values(), session.run(list(watched), batch), strict=True):
            found[name] = max(found[name], float(here))
    return found


def layer_inputs(graph: onnx_ir.Model, batches: Sequence[Batch]) -> dict[str, Spread]:
    """How the inputs of the layers that multiply, and the results of convolutions, are spread, by value name."""
    graph = graph.clone()
    layers = [layer for layer in find_layers(graph) if layer.macs_per_output]
    sources = {str(layer.source.name): layer.source for layer in layers}
    tails = [conv_tail(layer.node) for layer in layers if layer.kind is LayerKind.CONV]
    sources |= {str(tail.name): tail for tail in tails}
    spreads = {name: Spread() for name in sources}
    for name, values in _seen(graph, sources, batches):
        spreads[name].add(values)
    return spreads


def channel_peaks(graph: onnx_ir.Model, batches: Sequence[Batch]) -> dict[str, NDArray[np.float32]]:
    """The largest magnitude of each channel (channels,) of what products with a weight read, by value name."""
    graph = graph.clone()
    sources = {str(layer.source.name): layer.source for layer in _products(graph)}
    peaks: dict[str, NDArray[np.float32]] = {}
    for name, values in _seen(graph, sources, batches):
        here = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0, initial=0)
        peaks[name] = np.maximum(peaks.get(name, 0), here)
    return peaks


def _products(graph: onnx_ir.Model) -> list[Layer]:
    return [layer for layer in find_layers(graph) if layer.kind in PRODUCTS]


def _seen(
    graph: onnx_ir.Model,
    values: Mapping[str, onnx_ir.Value],
    batches: Sequence[Batch],
    mask_name: str = "attention_mask",
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What values of a graph, which is changed, are for each batch; of what products read without padded positions."""
    of_tokens = {str(layer.source.name) for layer in _products(graph)}
    names = [name for name, value in values.items() if not value.is_graph_input()]
    graph.graph.outputs.extend(values[name] for name in names if not values[name].is_graph_output())
    session = open_graph(graph)
    for batch in batches:
        found = dict(zip(names, session.run(names, batch), strict=True)) if names else {}
        found |= {name: batch[name] for name in values if name in batch}
        mask = batch.get(mask_name)
        for name, array in found.items():
            padded = mask is not None and name in of_tokens and array.ndim > 2 and array.shape[:2] == mask.shape
            yield name, array[mask.astype(bool)] if padded and mask is not None else array


def multiply_adds(graph: onnx_ir.Model, batch: Batch) -> dict[str, int]:
    """Multiply-adds of each layer on one batch, by layer name."""
    graph = graph.clone()
    layers = [layer for layer in find_layers(graph) if layer.macs_per_output]
    editor = Editor(graph)
    sizes = []
    for layer in layers:
        output = layer.node.outputs[0]
        (size,) = editor.add(
            layer.node, "Size", [output], [f"{layer.name}.size"], dtype=onnx_ir.DataType.INT64, after=True
        )
        sizes.append(_as_output(graph, size))
    found = open_graph(graph).run(sizes, batch) if sizes else []
    return {layer.name: int(size) * layer.macs_per_output for layer, size in zip(layers, found, strict=True)}


def _as_output(graph: onnx_ir.Model, scalar: onnx_ir.Value) -> str:
    """Let a graph give a scalar too; its name."""
    scalar.shape = onnx_ir.Shape(())
    graph.graph.outputs.append(scalar)
    return str(scalar.name)
