"""How each precision of a decoder is made from its traced graph."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir

from artifact.generate.cache import FLOAT32, KINDS, PAST, PRESENT, Kind
from artifact.generate.encoder import READ
from artifact.precision import Precision
from artifact.variant import Kept
from exporter.half import nodes_to_keep, places, to_half, unsupported
from exporter.language.blocks import block_quantized
from exporter.language.moments import Moments
from exporter.options import Options

FP32_BITS, HALF_BITS = 32, 16

READABLE = re.compile(rf"({PAST}|{PRESENT}|{READ})\.\d+\.(key|value)")
"""Inputs and outputs that hold keys and values. States of fixed shape are none: they stay in fp32."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What texts showed of a model: the second moments of each layer's inputs, and the largest magnitude of each value
    of a graph, as far as a derivation asks for them."""

    moments: Moments = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Derivation:
    """Bits of the weights of products, which those of the table of tokens and of the head that shares it are, too, or
    what the options say where it `has_choice`.

    What `is_calibrated` is rounded by the second moments of each layer's inputs. `half` is the number type of weights,
    arithmetic and cache that a CPU has to emulate. Where it `overflows`, what is near its largest number on texts stays
    in fp32.
    """

    bits: int
    has_choice: bool = False
    is_calibrated: bool = False
    half: onnx_ir.DataType | None = None
    overflows: bool = False

    @property
    def learns(self) -> bool:
        """Whether it depends on what texts showed."""
        return self.is_calibrated or self.overflows

    @property
    def cache(self) -> Kind:
        """The number type of keys and values."""
        return FLOAT32 if self.half is None else KINDS[f"tensor({self.half.name.lower()})"]

    def block(self, options: Options) -> int | None:
        """How many weights share a scale; `None` where there are none."""
        return None if self.bits >= HALF_BITS else options.block_size

    def head(self, options: Options) -> int:
        """Bits of the table of tokens and of the head that shares it."""
        return options.head_bits if self.has_choice else self.bits

    def make(self, graph: onnx_ir.Model, options: Options, seen: Seen) -> tuple[onnx_ir.Model, tuple[Kept, ...]]:
        """The graph at this precision, which may be the same one, changed in place, and what half numbers were kept
        from."""
        if self.half is not None:
            return self._halved(graph, self.half, seen.largest)
        block = self.block(options)
        if block is None:
            return graph, ()
        known, level = seen.moments if self.is_calibrated else None, options.accuracy_level
        head_bits = self.head(options)
        return block_quantized(graph, self.bits, block, head_bits=head_bits, level=level, moments=known), ()

    def _halved(
        self, graph: onnx_ir.Model, half: onnx_ir.DataType, largest: Mapping[str, float]
    ) -> tuple[onnx_ir.Model, tuple[Kept, ...]]:
        """Keys and values are half as well, and logits fp32."""
        kept = (*places(graph), *(nodes_to_keep(graph, largest) if self.overflows else ()))
        told = (*kept, *unsupported(graph, half))
        values = (*graph.graph.inputs, *graph.graph.outputs)
        states = {str(value.name) for value in values if READABLE.fullmatch(str(value.name))}
        return to_half(graph, half, {item.name for item in kept}, states), told


DERIVATIONS: Mapping[Precision, Derivation] = {
    Precision.FP32: Derivation(FP32_BITS),
    Precision.FP16: Derivation(HALF_BITS, half=onnx_ir.DataType.FLOAT16, overflows=True),
    Precision.BF16: Derivation(HALF_BITS, half=onnx_ir.DataType.BFLOAT16),
    Precision.INT8_DYNAMIC: Derivation(8),
    Precision.INT4: Derivation(4, has_choice=True, is_calibrated=True),
}
"""`exporter.request.OF_DECODERS` names the same ones without loading torch."""
