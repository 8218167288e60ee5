"""Other precisions, each derived from the one traced fp32 graph."""

import gc
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.variant import Recipe
from exporter.attend import attend
from exporter.calibrate import Calibration, ranges
from exporter.clean import strip
from exporter.four_bit import KINDS as INT4_KINDS
from exporter.four_bit import int4
from exporter.fuse import fuse
from exporter.half import nodes_to_keep, sensitive, to_half, unsupported, weight_range
from exporter.integer import DYNAMIC_KINDS, STATIC_KINDS, int8_dynamic, int8_static
from exporter.layers import LayerKind, find_layers
from exporter.observe import Spread, channel_peaks, largest_values, layer_inputs, multiply_adds
from exporter.options import Options
from exporter.outliers import level
from exporter.request import uncalibrated
from exporter.save import load_graph
from exporter.subject import Batch
from exporter.tie import tie, untie


@dataclass(frozen=True)
class Material:
    """What derivations start from: the fp32 graph's file, real batches that it was observed on, and the options.

    `calibration` are batches of the training split; the int8 ranges come from nothing else.
    """

    fp32: Path
    batches: tuple[Batch, ...]
    calibration: tuple[Batch, ...]
    options: Options = field(default_factory=Options)

    def graph(self) -> onnx_ir.Model:
        """A fresh copy of the fp32 graph."""
        gc.collect()  # nodes and values refer to each other, so that only this frees the copy before
        return untie(load_graph(self.fp32))

    def levelled(self) -> tuple[onnx_ir.Model, int]:
        """A fresh copy in which no channel stands out of what a product reads, and how many channels that took."""
        graph = self.graph()
        return graph, level(graph, self.peaks)

    @property
    def observed(self) -> tuple[Batch, ...]:
        """Training batches where there are any: what is chosen by examples should not be judged by the same ones."""
        return self.calibration or self.batches

    @property
    def chosen_on(self) -> str:
        """What those batches are."""
        return "training examples" if self.calibration else "the judged examples"

    @cached_property
    def largest(self) -> dict[str, float]:
        """Largest magnitude of each tensor on the batches that may be observed."""
        return largest_values(self.graph(), self.observed)

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """How the levelled inputs of layers are spread on calibration batches. Raises `UserError` where none are."""
        if not self.calibration:
            raise uncalibrated(Precision.INT8_STATIC)
        return layer_inputs(self.levelled()[0], self.calibration)

    @cached_property
    def peaks(self) -> dict[str, NDArray[np.float32]]:
        """Largest magnitude of each channel that products read, on the batches that may be observed."""
        return channel_peaks(self.graph(), self.observed)

    @cached_property
    def macs(self) -> dict[str, int]:
        """Multiply-adds of each layer on the first batch."""
        return multiply_adds(self.graph(), self.batches[0])

    @cached_property
    def elements(self) -> dict[str, tuple[str, int]]:
        """The weight of each layer and its number of elements; layers may share one."""
        return {layer.name: (str(layer.weight.name), layer.elements) for layer in find_layers(self.graph())}

    @cached_property
    def weights(self) -> int:
        """Number of all fp32 weights."""
        tensors = (value.const_value for value in self.graph().graph.initializers.values())
        return sum(tensor.size for tensor in tensors if tensor is not None and tensor.dtype is onnx_ir.DataType.FLOAT)

    def layers(self, kinds: Collection[LayerKind]) -> tuple[str, ...]:
        """Names of the layers of these kinds, in the graph's order."""
        return tuple(layer.name for layer in find_layers(self.graph()) if layer.kind in kinds)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a derivation is given: the layers to put in fewer bits and how their ranges are found, or for half numbers
    whether what is sensitive to rounding stays in fp32 too."""

    layers: tuple[str, ...] = ()
    calibration: Calibration = Calibration.MINMAX
    widened: bool = False


@dataclass(frozen=True, slots=True)
class Derivation:
    """How one precision is made. `kinds` are the layers it puts in fewer bits (none: it is not about layers);
    `half` is the number type that a CPU has to emulate."""

    make: Callable[[Material, Choice], tuple[onnx_ir.Model, Recipe]]
    kinds: frozenset[LayerKind] = frozenset()
    half: onnx_ir.DataType | None = None


def derive(precision: Precision, material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    """The graph at one precision, fused as the options say, and how it was made."""
    graph, recipe = DERIVATIONS[precision].make(material, choice)
    return fuse(strip(tie(graph)), material.options.profile), recipe


def _fp32(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    return material.graph(), Recipe(profile=material.options.profile)


def _fp16(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    graph = material.graph()
    kept, found = nodes_to_keep(graph, material.largest), weight_range(graph)
    if choice.widened:
        known = {item.name for item in kept}
        kept = (*kept, *(item for item in sensitive(graph) if item.name not in known))
    recipe = Recipe(
        profile=material.options.profile,
        chosen_on="the judged examples" if choice.widened else material.chosen_on if kept else None,
        kept=(*kept, *unsupported(graph, onnx_ir.DataType.FLOAT16)),
        weights_overflowing=found.overflowing,
        weights_vanishing=found.vanishing,
    )
    return to_half(graph, onnx_ir.DataType.FLOAT16, {item.name for item in kept}), recipe


def _bf16(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    graph = material.graph()
    recipe = Recipe(profile=material.options.profile, kept=unsupported(graph, onnx_ir.DataType.BFLOAT16))
    return to_half(graph, onnx_ir.DataType.BFLOAT16, ()), recipe


def _int8_dynamic(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    options = material.options
    levelled, recipe = _levelled(material)
    graph = int8_dynamic(levelled, choice.layers, options.target, options.weights)
    attend(graph)  # ONNX Runtime alone is quick with products that round as they go
    return graph, recipe


def _int8_static(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    options, calibration = material.options, choice.calibration
    spans = ranges(material.spreads, calibration)
    levelled, recipe = _levelled(material)
    graph = int8_static(levelled, choice.layers, spans, options.target, options.weights)
    examples = sum(len(next(iter(batch.values()))) for batch in material.calibration)
    return graph, msgspec.structs.replace(recipe, calibration=calibration, calibration_examples=examples)


def _levelled(material: Material) -> tuple[onnx_ir.Model, Recipe]:
    """The graph that both ways to int8 begin with, and what is known of them so far."""
    options = material.options
    graph, channels = material.levelled()
    recipe = Recipe(
        profile=options.profile,
        target=options.target,
        weights=options.weights,
        divided_channels=channels,
        chosen_on=material.chosen_on if channels else None,
    )
    return graph, recipe


def _int4(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    options = material.options
    graph = int4(material.graph(), choice.layers, block=options.block_size, accuracy_level=options.accuracy_level)
    recipe = Recipe(profile=options.profile, block_size=options.block_size, accuracy_level=options.accuracy_level)
    return graph, recipe


DERIVATIONS: Mapping[Precision, Derivation] = {
    Precision.FP32: Derivation(_fp32),
    Precision.FP16: Derivation(_fp16, half=onnx_ir.DataType.FLOAT16),
    Precision.BF16: Derivation(_bf16, half=onnx_ir.DataType.BFLOAT16),
    Precision.INT8_DYNAMIC: Derivation(_int8_dynamic, kinds=frozenset(DYNAMIC_KINDS)),
    Precision.INT8_STATIC: Derivation(_int8_static, kinds=frozenset(STATIC_KINDS)),
    Precision.INT4: Derivation(_int4, kinds=frozenset(INT4_KINDS)),
}
"""How each precision is made; `exporter.request.EXPORTED` names the same ones without loading torch."""
