"""What so many samples say of a quantile: MLPerf's early stopping, in pure functions.

How many of n samples lie beyond the true quantile q is Binomial(n, 1 - q). Where t or fewer do with a probability of at
most 1 %, the t-th highest sample bounds the quantile from above with at least 99 % confidence. MLPerf asks this of t,
where t - 1 would do for an order statistic: it counts the bound itself among the late ones, and so needs 662 samples
for a p99 where 459 are the least (MLPerf Inference Rules, appendix on early stopping; LoadGen's early_stopping.cc).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import exp, isnan, lgamma, log, log1p

RISK = 1 / 100
"""What is left to chance: bounds have 99 % confidence."""

_NEGLIGIBLE = 2.0**-60
"""A term of a sum is left out, and all smaller ones after it, when it is below this share of the sum."""


def least_samples(quantile: float) -> int:
    """The fewest samples that bound a quantile (0.99 for p99) from above: 11 for p50, 64 for p90, 662 for p99.

    Raises `ValueError` unless the quantile is between 0 and 1.
    """
    _check(quantile)
    enough = 2
    while _at_most(1, enough, quantile) > RISK:
        enough *= 2
    return bisect_left(range(enough), True, key=lambda count: count > 1 and _at_most(1, count, quantile) <= RISK)


def upper_bound(samples: Sequence[float], quantile: float) -> float | None:
    """The sample that bounds a quantile from above with 99 % confidence: the highest of those that are left when as
    many as can be are discarded. `None` where the samples are fewer than `least_samples`.

    Raises `ValueError` for a NaN, and unless the quantile is between 0 and 1.
    """
    _check(quantile)
    if any(isnan(sample) for sample in samples):
        raise ValueError("a sample is not a number")
    rank = _rank(len(samples), quantile)
    return sorted(samples)[-rank] if rank else None


def _rank(count: int, quantile: float) -> int:
    """The largest t of which t or fewer samples lie beyond the quantile with at most 1 % probability; 0 for none.

    At the mean of a binomial distribution, rounded up, its sum is at least a half: t lies below.
    """
    most = min(count, int(count * (1 - quantile)) + 1)
    return bisect_right(range(1, most + 1), RISK, key=lambda late: _at_most(late, count, quantile))


def _at_most(late: int, count: int, quantile: float) -> float:
    """Probability that `late` or fewer of `count` samples lie beyond the quantile.

    The largest of the terms in use is taken from logarithms of factorials, to 1e-9 of itself for 300,000 samples; the
    others follow from their ratios.
    """
    if late >= count:
        return 1.0
    top = min(late, int((count + 1) * (1 - quantile)))  # the mode, or as near to it as the sum comes
    odds = (1 - quantile) / quantile
    largest = exp(
        lgamma(count + 1)
        - lgamma(top + 1)
        - lgamma(count - top + 1)
        + top * log1p(-quantile)
        + (count - top) * log(quantile)
    )
    total = term = 1.0
    for number in range(top, 0, -1):
        term *= number / ((count - number + 1) * odds)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    term = 1.0
    for number in range(top + 1, late + 1):
        term *= (count - number + 1) * odds / number
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return largest * total


def _check(quantile: float) -> None:
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile lies between 0 and 1, and {quantile} does not")
