"""How each precision of a decoder is made from its traced graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir

from artifact.precision import Precision
from exporter.language.blocks import block_quantized
from exporter.language.moments import Moments
from exporter.options import Options

FP32_BITS = 32
HEAD_BITS = 8
"""Of int4's table and head: in 4 bits they cost a small model nearly as much as all its layers do
(`docs/benchmarks.md`)."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """Bits of the weights of products, and of the table of tokens with the head that shares it.

    What `is_calibrated` is rounded by the second moments of each layer's inputs.
    """

    bits: int
    head_bits: int
    is_calibrated: bool = False

    def block(self, options: Options) -> int | None:
        """How many weights share a scale; `None` where there are none."""
        return None if self.bits == FP32_BITS else options.block_size

    def make(self, graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
        """The graph at this precision, which may be the same one, changed in place."""
        block = self.block(options)
        if block is None:
            return graph
        known, level = moments if self.is_calibrated else None, options.accuracy_level
        return block_quantized(graph, self.bits, block, head_bits=self.head_bits, level=level, moments=known)


DERIVATIONS: Mapping[Precision, Derivation] = {
    Precision.FP32: Derivation(FP32_BITS, FP32_BITS),
    Precision.INT8_DYNAMIC: Derivation(8, 8),
    Precision.INT4: Derivation(4, HEAD_BITS, is_calibrated=True),
}
"""`exporter.request.OF_DECODERS` names the same ones without loading torch."""
