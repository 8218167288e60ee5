"""Against the binomial distribution summed in whole numbers, scipy's, and the figures of MLPerf's rules."""

import math
from fractions import Fraction
from random import Random

import pytest
from scipy.stats import binom

from measure.percentiles import least_samples, upper_bound

MLPERF = {0.5: 11, 0.9: 64, 0.95: 130, 0.99: 662, 0.999: 6636}
RISK = Fraction(1, 100)


def exact_rank(count: int, quantile: float) -> int:
    """The largest t with P(X <= t) <= 1 %, X ~ Binomial(count, 1 - quantile), in whole numbers; 0 for none."""
    below, whole = quantile.as_integer_ratio()
    beyond = whole - below
    total, rank = 0, 0
    for late in range(count + 1):
        total += math.comb(count, late) * beyond**late * below ** (count - late)
        if total * RISK.denominator > RISK.numerator * whole**count:
            break
        rank = late
    return rank


def rank(count: int, quantile: float) -> int:
    """Which of the highest samples the bound is: the samples are their own ranks."""
    bound = upper_bound([float(number) for number in range(1, count + 1)], quantile)
    return 0 if bound is None else count + 1 - round(bound)


@pytest.mark.parametrize(("quantile", "count"), MLPERF.items())
def test_the_fewest_samples_are_mlperfs(quantile: float, count: int) -> None:
    assert least_samples(quantile) == count
    assert rank(count, quantile) == 1  # nothing is discarded yet: the bound is the slowest
    assert rank(count - 1, quantile) == 0


def test_ranks_are_those_of_a_binomial_in_whole_numbers() -> None:
    random = Random(0)
    cases = {(random.randrange(1, 150), random.random()) for _ in range(1500)}
    cases |= {(count, quantile) for count in range(1, 150) for quantile in MLPERF}
    assert len(cases) > 2000
    found = {case: rank(*case) for case in cases}
    assert found == {case: exact_rank(*case) for case in cases}
    assert len(set(found.values())) > 50


@pytest.mark.parametrize("quantile", [1e-6, 0.001, 0.25, 0.97, 0.9999])
def test_the_fewest_samples_of_other_quantiles_are_the_least_that_do(quantile: float) -> None:
    count = least_samples(quantile)
    exact = Fraction(quantile)

    def at_most_one(n: int) -> Fraction:
        return exact**n + n * (1 - exact) * exact ** (n - 1)

    if count < 1000:
        assert at_most_one(count) <= RISK < at_most_one(count - 1)
    else:
        assert binom.cdf(1, count, 1 - quantile) <= 0.01 < binom.cdf(1, count - 1, 1 - quantile)


@pytest.mark.parametrize("quantile", MLPERF)
@pytest.mark.parametrize("count", [10_000, 23_886, 100_003, 262_742, 300_000])
def test_large_samples_agree_with_scipy(count: int, quantile: float) -> None:
    found = rank(count, quantile)
    assert binom.cdf(found, count, 1 - quantile) <= 0.01 < binom.cdf(found + 1, count, 1 - quantile)


@pytest.mark.parametrize("quantile", MLPERF)
def test_the_bound_lies_above_the_true_quantile_99_times_in_100(quantile: float) -> None:
    """Uniform samples, whose quantile is known: by its rank, the bound follows a Beta distribution."""
    from scipy.stats import beta

    for count in (MLPERF[quantile], 3 * MLPERF[quantile], 50 * MLPERF[quantile]):
        order = rank(count, quantile)
        assert beta.cdf(quantile, count + 1 - order, order) <= 0.01


def test_the_order_of_the_samples_does_not_matter_and_they_stay_as_they_are() -> None:
    samples = [float(number) for number in range(1, 1001)]
    shuffled = Random(1).sample(samples, 1000)
    before = list(shuffled)
    assert upper_bound(shuffled, 0.9) == upper_bound(samples, 0.9) == 1001 - exact_rank(1000, 0.9)
    assert shuffled == before


def test_a_sample_that_never_ended_is_the_highest() -> None:
    assert upper_bound([1.0] * 661 + [math.inf], 0.99) == math.inf
    assert upper_bound([1.0] * 10_000 + [math.inf], 0.99) == 1.0


@pytest.mark.parametrize("count", [0, 1, 10])
def test_too_few_samples_have_no_bound(count: int) -> None:
    assert upper_bound([1.0] * count, 0.5) is None


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.1, 99.0, math.nan])
def test_a_quantile_lies_between_0_and_1(quantile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        least_samples(quantile)
    with pytest.raises(ValueError, match="between 0 and 1"):
        upper_bound([1.0] * 1000, quantile)


def test_what_is_no_number_has_no_order() -> None:
    with pytest.raises(ValueError, match="not a number"):
        upper_bound([1.0] * 999 + [math.nan], 0.9)
