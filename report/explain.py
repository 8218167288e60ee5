"""Why a precision is as fast as it is here: what the CPU offers, and what the engine made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from artifact.precision import Precision
from measure.records import Role
from measure.statistics import EQUIVALENT
from report.judge import speed
from report.verdict import Row, Verdict


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A number type: the instruction sets that compute in it (as Linux names them, x86 first, then ARM), and words by
    which engines name kernels that do."""

    name: str
    features: tuple[str, ...]
    kernels: tuple[str, ...]


PRODUCTS = ("matmul", "gemm", "fullyconnected", "convolution", "linear")
"""Words by which engines name matrix products, where nearly all of the time goes."""

TYPED = ("float", "int64", "f32", "bf16")
"""Words that show that an engine's names bear number types."""

INT8 = Arithmetic(
    "int8",
    ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"),
    ("integer", "quantizematmul", "qlinear", "_i8", "_u8", "int8_t"),
)
ARITHMETICS: Mapping[Precision, Arithmetic] = {
    Precision.INT8_DYNAMIC: INT8,
    Precision.INT8_STATIC: INT8,
    Precision.BF16: Arithmetic("bf16", ("amx_bf16", "avx512_bf16", "bf16"), ("bf16", "bfloat16")),
    Precision.FP16: Arithmetic("fp16", ("amx_fp16", "avx512_fp16"), ("float16", "_f16")),
    Precision.INT4: Arithmetic("int4", (), ("nbits", "_u4", "_i4")),
}


def explanations(verdict: Verdict) -> tuple[str, ...]:
    """A sentence for each precision that ran on a CPU beside the same engine's fp32: expected and measured."""
    measured = [row for row in verdict.rows if row.measured and row.role is not Role.CONTROL and row.info]
    return tuple(
        _sentence(row, plain, verdict.machine.cpu_features)
        for row in measured
        if row.precision in ARITHMETICS
        and row.info
        and row.info.device.startswith("cpu")
        and (plain := _plain(row, measured)) is not None
    )


def _plain(row: Row, measured: Sequence[Row]) -> Row | None:
    """The same engine in fp32 with the fewest options."""
    found = [item for item in measured if item.runtime == row.runtime and item.precision == Precision.FP32]
    return min(found, key=lambda item: len(item.name), default=None)


def _sentence(row: Row, plain: Row, cpu_features: Sequence[str]) -> str:
    arithmetic = ARITHMETICS[Precision(row.precision)]
    has = [name for name in arithmetic.features if name in cpu_features]
    gain = speed(row) / (speed(plain) or 1.0)
    offers = (
        f"this CPU has {' and '.join(has)}"
        if has
        else f"this CPU has no instructions for {arithmetic.name}"
        if arithmetic.features
        else f"{arithmetic.name} saves memory and is unpacked to compute"
    )
    surprise = ""
    if has and gain < 1 / EQUIVALENT:
        surprise = ", though it was to be faster"
    if not has and gain > EQUIVALENT:
        surprise = ", though it was not to be faster"
    facts = [offers, *_kernels(row, arithmetic)]
    return f"{row.name} has {gain:.2f}× the speed of {plain.name}{surprise}: {', '.join(facts)}."


def _kernels(row: Row, arithmetic: Arithmetic) -> list[str]:
    """How many matrix products compute in the number type, and how many kernels only convert; nothing where the engine
    hides it, as where operators bear no number type in their names."""
    executed = row.executed
    if executed is None:
        return []
    told = [] if not executed.conversions else [f"{executed.conversions} kernels only convert number types"]
    names = {kernel.lower(): count for kernel, count in executed.kernels.items()}
    products = {
        kernel: count
        for kernel, count in names.items()
        if any(word in kernel for word in PRODUCTS) and "quantizelinear" not in kernel
    }
    if not products or not any(word in kernel for kernel in names for word in TYPED):
        return told
    low = sum(count for kernel, count in products.items() if any(word in kernel for word in arithmetic.kernels))
    of = f"{low} of {sum(products.values())}" if low else f"none of {sum(products.values())}"
    return [f"{of} matrix products compute in {arithmetic.name}", *told]
