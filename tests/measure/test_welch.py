from math import inf, sqrt

import numpy as np
import pytest
from scipy import stats

from measure.welch import Shift, shift


def test_two_groups_by_hand() -> None:
    """Variances of 4/3·10⁻⁴ and 12·10⁻⁴, of means 1/3·10⁻⁴ and 3·10⁻⁴; 3·(1/3 + 3)² / (1/9 + 9) degrees of freedom."""
    found = shift([-0.01, 0.01, -0.01, 0.01], [0.07, 0.13, 0.07, 0.13])
    assert found is not None
    assert found.estimate == pytest.approx(0.1)
    assert found.error == pytest.approx(sqrt(1e-4 / 3 + 3e-4))
    assert found.degrees == pytest.approx(3.6585366)


@pytest.mark.parametrize(("few", "many"), [(2, 2), (4, 4), (4, 8), (12, 3)])
def test_interval_and_p_values_are_scipys(few: int, many: int) -> None:
    random = np.random.default_rng(few)
    base, later = random.normal(0, 0.02, few), random.normal(0.05, 0.07, many)
    found = shift(base.tolist(), later.tolist())
    assert found is not None
    expected = stats.ttest_ind(later, base, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-7)
    assert found.degrees == pytest.approx(expected.df)
    above = stats.ttest_ind(later - 0.03, base, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(later - 0.03, base, equal_var=False, alternative="less").pvalue
    assert found.p_above(0.03) == pytest.approx(above, rel=1e-7)
    assert found.p_below(0.03) == pytest.approx(below, rel=1e-7)


def test_a_p_value_below_a_fortieth_is_an_interval_wholly_beyond() -> None:
    found = Shift(0.1, 0.02, 6.5)
    low, high = found.interval
    assert found.p_above(low) == pytest.approx(0.025)
    assert found.p_below(high) == pytest.approx(0.025)


@pytest.mark.parametrize(("base", "later"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_one_number_tells_no_scatter(base: list[float], later: list[float]) -> None:
    assert shift(base, later) is None


def test_without_scatter_the_interval_has_no_width_and_any_distance_counts() -> None:
    found = shift([1.0, 1.0], [1.5, 1.5])
    assert found == Shift(0.5, 0.0, inf)
    assert found.interval == (0.5, 0.5)
    assert (found.p_above(0.4), found.p_above(0.5), found.p_above(0.6)) == (0.0, 1.0, 1.0)
    assert (found.p_below(0.4), found.p_below(0.5), found.p_below(0.6)) == (1.0, 1.0, 0.0)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1947)
    held = 0
    for _ in range(1000):
        found = shift(random.normal(0, 0.01, 4).tolist(), random.normal(0.03, 0.03, 4).tolist())
        assert found is not None
        held += found.interval[0] <= 0.03 <= found.interval[1]
    assert 925 <= held <= 975
