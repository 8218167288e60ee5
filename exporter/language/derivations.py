"""What is done to a traced graph for each precision, as facts."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_ir import DataType

from artifact.generate.cache import FLOAT32, KINDS, Kind
from artifact.precision import Precision
from exporter.options import Options

FP32_BITS, HALF_BITS = 32, 16

OPSET = 23
"""That of each traced graph: the first with RMSNormalization."""


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
    half: DataType | None = None
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


DERIVATIONS: Mapping[Precision, Derivation] = {
    Precision.FP32: Derivation(FP32_BITS),
    Precision.FP16: Derivation(HALF_BITS, half=DataType.FLOAT16, overflows=True),
    Precision.BF16: Derivation(HALF_BITS, half=DataType.BFLOAT16),
    Precision.INT8_DYNAMIC: Derivation(8),
    Precision.INT4: Derivation(4, has_choice=True, is_calibrated=True),
}
