"""Other precisions, derived from the traced fp32 graph."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from artifact.precision import Precision
from artifact.records import replacing


def int8_dynamic(source: Path, target: Path) -> None:
    """Weights to signed 8 bits per output channel, activations to 8 bits with a scale found for each batch.

    Signed weights matter: with unsigned ones ONNX Runtime's fast integer kernel is not used. `Gather` (the
    embedding) is quantised too, for size: unsigned, with one scale for each table.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    advice = logging.getLogger()
    level = advice.level
    advice.setLevel(logging.ERROR)  # it advises a shape inference that this graph does not need
    try:
        with replacing(target) as temporary:
            quantize_dynamic(source, temporary, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        advice.setLevel(level)


DERIVATIONS: Mapping[Precision, Callable[[Path, Path], None]] = {Precision.INT8_DYNAMIC: int8_dynamic}
"""How each precision but fp32 is made: from the fp32 file to a new file."""

EXPORTED = (Precision.FP32, *DERIVATIONS)
"""Every precision the exporter can make."""
