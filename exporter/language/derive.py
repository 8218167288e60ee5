"""How each precision of a decoder is made from its traced graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir

from artifact.precision import Precision
from exporter.language.blocks import block_quantized
from exporter.language.moments import Moments
from exporter.options import Options

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
    make: Callable[[onnx_ir.Model, Options, Moments], onnx_ir.Model]
    is_calibrated: bool = False


def _fp32(graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
    return graph


def _int8(graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
    return block_quantized(graph, 8, options.block_size, level=options.accuracy_level)


def _int4(graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
    return block_quantized(
        graph, 4, options.block_size, head_bits=HEAD_BITS, level=options.accuracy_level, moments=moments
    )


DERIVATIONS: Mapping[Precision, Derivation] = {
    Precision.FP32: Derivation(32, 32, _fp32),
    Precision.INT8_DYNAMIC: Derivation(8, 8, _int8),
    Precision.INT4: Derivation(4, HEAD_BITS, _int4, is_calibrated=True),
}
"""`exporter.request.OF_DECODERS` names the same ones without loading torch."""
