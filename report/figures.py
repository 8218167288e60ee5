"""Numbers as people read them, with their units."""

from report.verdict import Gate, QualityResult, Ratio

DASH = "–"
PASSED, UNSURE, FAILED = "✓", "≈", "✗"


def seconds(value: float | None) -> str:
    """`3.97 s`, `24.5 ms` or `0.9 µs`: three digits at the fitting unit."""
    if value is None:
        return DASH
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor or unit == "µs":
            return f"{_digits(value / factor)} {unit}"
    raise AssertionError("the last unit takes every value")


def size(value: int | None) -> str:
    """Bytes in decimal megabytes."""
    return DASH if value is None else f"{_digits(value / 1e6)} MB"


def joules(value: float | None) -> str:
    """`1.25 J`."""
    return DASH if value is None else f"{_digits(value)} J"


def rate(value: float | None) -> str:
    """`1,214` or `9.72`: how many in a second."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else _digits(value)


def fraction(value: float | None, digits: int = 1) -> str:
    """A share as per cent."""
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def times(ratio: Ratio | None) -> str:
    """`2.96× [2.42–3.33]`: a speed ratio with its 95 % interval."""
    if ratio is None:
        return DASH
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.2f}× [too few runs]"
    return f"{ratio.ratio:.2f}× [{ratio.low:.2f}–{ratio.high:.2f}]"


def started(words: str) -> str:
    """Words as a sentence or a title begins with them."""
    return words[:1].upper() + words[1:]


def accuracy(quality: QualityResult | None) -> str:
    """Accuracy with a mark: ✓ passed the gate, ≈ passed but not certain, ✗ failed."""
    if quality is None:
        return DASH
    marks = {Gate.PASSED: PASSED, Gate.PASSED_UNSURE: UNSURE, Gate.FAILED: FAILED}
    return f"{quality.accuracy_fraction:.3f} {marks.get(quality.gate, '')}".rstrip()


def perplexity(quality: QualityResult | None) -> str:
    """`26.3`, and how many times the reference's that is; infinite where an answer is no number."""
    if quality is None or quality.reference_perplexity is None:
        return DASH
    if quality.perplexity is None:
        return "∞"
    return f"{_digits(quality.perplexity)} ({quality.perplexity / quality.reference_perplexity:.3f}×)"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
