"""Why a precision is as fast as it is here: what the CPU offers, what the engine made of it, and what memory gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from artifact.precision import Precision
from measure.records import Role
from measure.statistics import EQUIVALENT
from measure.workload import Phase
from report.judge import speed
from report.verdict import Row, Verdict


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A number type: the instruction sets that compute in it (as Linux names them, x86 first, then ARM; none where no
    CPU does), and words by which engines name kernels that do."""

    name: str
    features: tuple[str, ...]
    kernels: tuple[str, ...]


PRODUCTS = ("matmul", "gemm", "fullyconnected", "convolution", "linear")
"""Words by which engines name matrix products, where nearly all of the time goes."""

TYPED = ("float", "int64", "f32", "bf16")
"""Words that show that an engine's names bear number types."""

BY_BLOCKS = "nbits"
"""How engines name products with weights in blocks of 4 or 8 bits."""

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
    Precision.INT4: Arithmetic("int4", (), ("_u4", "_i4")),
}

SHORT = 256
"""Tokens before a step up to which their keys and values are little beside a model's weights."""

SAME_RATE = 1.25
"""Up to this factor the rate of a larger file proves nothing: both are medians on a machine that is not quiet."""


def explanations(verdict: Verdict) -> tuple[str, ...]:
    """What was expected and measured of each precision that ran on a CPU beside the same engine's fp32. Of a language
    model reading and writing are told apart: the one is arithmetic, the other goes through all weights for each token.
    """
    measured = [
        row
        for row in verdict.rows
        if row.measured and row.role is not Role.CONTROL and row.info and row.info.device.startswith("cpu")
    ]
    pairs = [
        (row, plain)
        for row in measured
        if row.precision in ARITHMETICS and (plain := _plain(row, measured)) and _is_known(row) and _is_known(plain)
    ]
    sentences = [_arithmetic(row, plain, verdict.machine.cpu_features) for row, plain in pairs]
    sentences += [_memory(row, plain, measured) for row, plain in pairs]
    return tuple(sentence for sentence in sentences if sentence)


def _plain(row: Row, measured: Sequence[Row]) -> Row | None:
    """The same engine in fp32 with the fewest options."""
    found = [item for item in measured if item.runtime == row.runtime and item.precision == Precision.FP32]
    return min(found, key=lambda item: len(item.name), default=None)


def _is_known(row: Row) -> bool:
    """Whether a row's speed has an interval: nothing is made of what one process did."""
    return row.role is Role.ANCHOR or (row.overall is not None and row.overall.is_known)


def _gain(row: Row, plain: Row, phase: Phase) -> float | None:
    """Speed as a multiple of `plain`'s over the workloads of a phase (geometric mean); `None` where there are none."""
    gains = [
        own / other
        for workload in (result.workload for result in row.workloads if result.phase is phase)
        if (own := row.speed_at(workload)) and (other := plain.speed_at(workload))
    ]
    return prod(gains) ** (1 / len(gains)) if gains else None


def _arithmetic(row: Row, plain: Row, cpu_features: Sequence[str]) -> str | None:
    """What the CPU offers for a number type, and what came of it: of a language model in reading."""
    arithmetic = ARITHMETICS[Precision(row.precision)]
    has = [name for name in arithmetic.features if name in cpu_features]
    writes = any(result.phase for result in row.workloads)
    gain = _gain(row, plain, Phase.READ) if writes else speed(row) / (speed(plain) or 1.0)
    if gain is None:
        return None
    offers, surprise = f"{arithmetic.name} is unpacked to compute", ""
    if has:
        offers = f"this CPU has {' and '.join(has)}"
        surprise = ", though it was to be faster" if gain < 1 / EQUIVALENT else ""
    elif arithmetic.features:
        offers = f"this CPU has no instructions for {arithmetic.name}"
        surprise = ", though it was not to be faster" if gain > EQUIVALENT else ""
    facts = ", ".join([offers, *_kernels(row, arithmetic)])
    return f"{row.name} {'reads at' if writes else 'has'} {gain:.2f}× the speed of {plain.name}{surprise}: {facts}."


def _memory(row: Row, plain: Row, measured: Sequence[Row]) -> str | None:
    """How fast a language model's written tokens go through its weights, and whether memory could give more: a larger
    file that is gone through faster shows that it could. `None` of what writes nothing, or converts as it loads."""
    rate, gain = _step_rate(row), _gain(row, plain, Phase.WRITE)
    if rate is None or gain is None or not row.step_bytes or not plain.step_bytes:
        return None
    larger = [
        (found, other.name)
        for other in measured
        if (other.step_bytes or 0) >= row.step_bytes and other.name != row.name and (found := _step_rate(other))
    ]
    if not larger:
        return None
    best, name = max(larger)
    beside = (
        f"where {name} goes through {best / 1e9:.1f}, so it waits for its kernels and not for memory"
        if best > SAME_RATE * rate
        else f"and no file as large is gone through much faster ({name}: {best / 1e9:.1f}), so it may wait for memory"
    )
    return (
        f"{row.name} writes at {gain:.2f}× the speed of {plain.name}, whose file is "
        f"{plain.step_bytes / row.step_bytes:.1f} times as large: it goes through {rate / 1e9:.1f} GB of weights a "
        f"second, {beside}."
    )


def _step_rate(row: Row) -> float | None:
    """Bytes of weights that are gone through in a second by a step behind the fewest tokens; `None` where these are so
    many that keys and values count."""
    read = [result.tokens or 0 for result in row.workloads if result.phase is Phase.READ]
    steps_s = [result.batch_s for result in row.workloads if result.phase is Phase.WRITE]
    tokens, step_s = min(zip(read, steps_s, strict=True), default=(0, 0.0))
    return row.step_bytes / step_s if row.step_bytes and step_s and tokens <= SHORT else None


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
    blocks = sum(count for kernel, count in products.items() if BY_BLOCKS in kernel)
    if blocks:
        return [f"{blocks} of {sum(products.values())} matrix products have weights in blocks of few bits", *told]
    low = sum(count for kernel, count in products.items() if any(word in kernel for word in arithmetic.kernels))
    if not low and (not arithmetic.features or any(result.phase for result in row.workloads)):
        return told  # weights alone are in fewer bits, and a kernel's name need not say so
    of = f"{low} of {sum(products.values())}" if low else f"none of {sum(products.values())}"
    does = f"compute in {arithmetic.name}" if arithmetic.features else f"have {arithmetic.name} weights"
    return [f"{of} matrix products {does}", *told]
