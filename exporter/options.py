"""What a user may choose about an export; light to import, so that the command line can name the choices."""

from dataclasses import dataclass
from enum import StrEnum

from errors import UserError

EXTERNAL_DATA_BYTES = 1_500_000_000
"""Graphs with more weight bytes keep them in a second file: a protobuf ends at 2 GB."""

EXAMPLES = 500
"""How many examples of `--data` variants are compared on, if the user does not say."""


class Profile(StrEnum):
    """Which operators a graph may have: standard ones, or ONNX Runtime's fused ones for its CPU or its GPU kernels.

    What is fused is no promise of speed: measure it. `int4` has ONNX Runtime's MatMulNBits and
    `int8-dynamic`, which it alone computes, its MultiHeadAttention in any case.
    """

    PORTABLE = "portable"
    ORT = "ort"
    ORT_GPU = "ort-gpu"


class Target(StrEnum):
    """Which CPUs an int8 graph is for. ONNX Runtime's guidance: x86 without VNNI needs weights of 7 bits, because its
    kernel adds two products in 16 bits and saturates; ARM likes signed, symmetric activations."""

    X86 = "x86"
    X86_WITHOUT_VNNI = "x86-without-vnni"
    ARM = "arm"

    @property
    def weight_limit(self) -> int:
        """The largest quantised weight."""
        return 63 if self is Target.X86_WITHOUT_VNNI else 127

    @property
    def signed_activations(self) -> bool:
        return self is Target.ARM


class Weights(StrEnum):
    """How int8 weights are stored: about 0, or shifted by 128. ONNX Runtime's quick kernels want signed ones."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for all variants. Accuracy level 4 lets int4 kernels round activations to int8, 0 does not.

    `head_bits` are those of the table of tokens and of the head that shares it in a language model's int4: in 4 they
    cost a small model nearly as much as all its layers do (`docs/benchmarks.md`). Raises `UserError` for numbers that
    no kernel has.
    """

    profile: Profile = Profile.PORTABLE
    target: Target = Target.X86
    weights: Weights = Weights.SIGNED
    block_size: int = 32
    accuracy_level: int = 4
    head_bits: int = 8

    def __post_init__(self) -> None:
        if self.block_size & (self.block_size - 1):
            raise UserError(f"--block-size has {self.block_size}", "give a power of two from 16, such as 32")
        if self.head_bits not in (4, 8):
            raise UserError(f"--head-bits has {self.head_bits}", "give 4 or 8")
