from math import atan, inf, nan, pi, sqrt

import numpy as np
import pytest
from scipy import stats

from measure.student import quantile, tail

DEGREES = (0.5, 1.0, 1.7, 2.0, 3.0, 4.43, 7.0, 12.9, 30.0, 99.5, 1e3, 1.23e4, 9e5)
VALUES = (0.0, 1e-12, 1e-3, 0.1, 0.5, 0.9999, 1.0, 1.5, 2.0, 3.182, 5.0, 12.706, 40.0, 1e3)
PROBABILITIES = (1e-12, 1e-6, 0.001, 0.025, 0.05, 0.3, 0.4999, 0.5, 0.6, 0.9, 0.95, 0.975, 0.999, 1 - 1e-9)


@pytest.mark.parametrize("df", DEGREES)
def test_the_tail_is_scipys(df: float) -> None:
    t = np.array(VALUES)
    assert [tail(value, df) for value in t] == pytest.approx(stats.t.sf(t, df), rel=2e-9, abs=1e-300)
    assert [tail(-value, df) for value in t] == pytest.approx(stats.t.sf(-t, df), rel=2e-9)


@pytest.mark.parametrize("df", DEGREES)
def test_the_quantile_is_scipys(df: float) -> None:
    assert [quantile(p, df) for p in PROBABILITIES] == pytest.approx(stats.t.ppf(PROBABILITIES, df), rel=2e-9, abs=1e-9)


@pytest.mark.parametrize("t", [0.3, 1.0, 4.0, 25.0])
def test_one_two_and_four_degrees_have_formulas(t: float) -> None:
    assert tail(t, 1) == pytest.approx(0.5 - atan(t) / pi)
    assert tail(t, 2) == pytest.approx(0.5 - t / (2 * sqrt(2 + t * t)))
    s = t / sqrt(4 + t * t)
    assert tail(t, 4) == pytest.approx(0.5 - 0.75 * s + 0.25 * s**3, rel=1e-9)


@pytest.mark.parametrize(
    ("p", "df", "printed"), [(0.975, 1, 12.706), (0.975, 3, 3.182), (0.95, 6, 1.943), (0.995, 10, 3.169)]
)
def test_the_quantiles_are_those_of_printed_tables(p: float, df: float, printed: float) -> None:
    assert quantile(p, df) == pytest.approx(printed, abs=5e-4)
    assert quantile(1 - p, df) == pytest.approx(-printed, abs=5e-4)


@pytest.mark.parametrize("df", [1e6, 1e9, inf])
def test_many_degrees_are_the_normal_distribution(df: float) -> None:
    assert tail(1.96, df) == pytest.approx(stats.norm.sf(1.96), rel=1e-9)
    assert quantile(0.975, df) == pytest.approx(1.9599639845, rel=1e-9)


def test_where_the_normal_takes_over_nothing_jumps() -> None:
    for t in (0.5, 2.0, 5.0):
        assert tail(t, 999_999.0) == pytest.approx(tail(t, 1e6), rel=2e-4)


def test_the_ends() -> None:
    assert (tail(inf, 3), tail(-inf, 3), tail(0.0, 3), quantile(0.5, 3)) == (0.0, 1.0, 0.5, 0.0)


@pytest.mark.parametrize(("t", "df"), [(nan, 3.0), (1.0, 0.0), (1.0, -1.0), (1.0, nan)])
def test_a_tail_of_nothing_is_an_error(t: float, df: float) -> None:
    with pytest.raises(ValueError, match="has no tail above"):
        tail(t, df)


@pytest.mark.parametrize(("p", "df"), [(0.0, 3.0), (1.0, 3.0), (nan, 3.0), (1.5, 3.0), (0.9, 0.0), (0.9, nan)])
def test_a_quantile_of_nothing_is_an_error(p: float, df: float) -> None:
    with pytest.raises(ValueError, match="has no quantile"):
        quantile(p, df)
