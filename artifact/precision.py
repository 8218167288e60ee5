"""The number formats a model can be run in."""

from enum import StrEnum


class Precision(StrEnum):
    """Number format of weights and arithmetic; TF32 is a way to multiply fp32 numbers, not a file format."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8_DYNAMIC = "int8-dynamic"
    INT8_STATIC = "int8-static"
    INT4 = "int4"

    @property
    def file_suffix(self) -> str:
        """Suffix of `onnx/model{suffix}.onnx` as transformers.js names its files (it has none for bf16)."""
        return {
            Precision.FP16: "_fp16",
            Precision.BF16: "_bf16",
            Precision.INT8_DYNAMIC: "_quantized",
            Precision.INT8_STATIC: "_int8",
            Precision.INT4: "_q4",
        }.get(self, "")

    @property
    def depends_on_batch(self) -> bool:
        """Whether an answer depends on what shares its batch, because activations are scaled by the whole batch."""
        return self is Precision.INT8_DYNAMIC
