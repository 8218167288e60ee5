"""A decoder's graph at another precision, made from the traced one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir

from artifact.generate.cache import PAST, PRESENT
from artifact.generate.encoder import READ
from artifact.variant import Kept
from exporter.half import nodes_to_keep, places, to_half, unsupported
from exporter.language.blocks import block_quantized
from exporter.language.derivations import Derivation
from exporter.language.moments import Moments
from exporter.options import Options

READABLE = re.compile(rf"({PAST}|{PRESENT}|{READ})\.\d+\.(key|value)")
"""Inputs and outputs that hold keys and values. States of fixed shape are none: they stay in fp32."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What texts showed of a model: the second moments of each layer's inputs, and the largest magnitude of each value
    of a graph, as far as a derivation asks for them."""

    moments: Moments = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)


def derive(
    derivation: Derivation, graph: onnx_ir.Model, options: Options, seen: Seen
) -> tuple[onnx_ir.Model, tuple[Kept, ...]]:
    """The graph at this precision, which may be the same one, changed in place, and what half numbers were kept
    from."""
    if derivation.half is not None:
        largest = seen.largest if derivation.overflows else None
        return _halved(graph, derivation.half, largest)
    block = derivation.block(options)
    if block is None:
        return graph, ()
    known, level = seen.moments if derivation.is_calibrated else None, options.accuracy_level
    head_bits = derivation.head(options)
    return block_quantized(graph, derivation.bits, block, head_bits=head_bits, level=level, moments=known), ()


def _halved(
    graph: onnx_ir.Model, half: onnx_ir.DataType, largest: Mapping[str, float] | None
) -> tuple[onnx_ir.Model, tuple[Kept, ...]]:
    """Keys and values are half as well, and logits fp32. What is near the `largest` half number stays fp32, too."""
    kept = (*places(graph), *(() if largest is None else nodes_to_keep(graph, largest)))
    told = (*kept, *unsupported(graph, half))
    values = (*graph.graph.inputs, *graph.graph.outputs)
    states = {str(value.name) for value in values if READABLE.fullmatch(str(value.name))}
    return to_half(graph, half, {item.name for item in kept}, states), told
