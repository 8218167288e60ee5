import numpy as np
import pytest
from scipy import stats

from artifact.intervals import accuracy_interval, paired_difference


@pytest.mark.parametrize(
    ("total", "squares", "examples", "low", "high"),
    [
        # by hand: 1.5/12 ∓ 1.96·√(1.25 + 1 - 2.25/12)/12
        (1.5, 1.25, 10, -0.1095696, 0.3595696),
        # no pair differs: 0 ∓ 1.96·√1/102
        (0.0, 0.0, 100, -0.0192157, 0.0192157),
        # one pair, wholly lost: -1/3 ∓ 1.96·√(2 - 1/3)/3
        (-1.0, 1.0, 1, -1.1767830, 0.5101164),
    ],
)
def test_it_is_walds_interval_with_two_pseudo_pairs(
    total: float, squares: float, examples: int, low: float, high: float
) -> None:
    found = paired_difference(total, squares, examples)
    assert found.estimate == pytest.approx(total / examples)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_swapped_sides_have_the_mirrored_interval() -> None:
    there, back = paired_difference(3.25, 4.5, 40), paired_difference(-3.25, 4.5, 40)
    assert (there.low, there.high) == (-(back.high or 0), -(back.low or 0))


def test_sums_that_rounding_made_impossible_still_give_an_interval() -> None:
    found = paired_difference(100.0, 0.0, 10)
    assert found.low == found.high == pytest.approx(100 / 12)


def test_it_covers_the_mean_of_fractions_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    drawn = random.choice([-1.0, -0.4, 0.0, 0.3, 1.0], (2000, 150), p=[0.03, 0.05, 0.8, 0.07, 0.05])
    truth = -0.03 - 0.02 + 0.021 + 0.05
    found = [paired_difference(float(row.sum()), float((row**2).sum()), 150) for row in drawn]
    covered = np.mean([item.low <= truth <= item.high for item in found if item.low and item.high])
    assert 0.935 <= covered <= 0.985


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (83, 100), (832, 1000), (1000, 1000)])
def test_an_accuracy_has_wilsons_interval(right: int, examples: int) -> None:
    found = accuracy_interval(right, examples)
    expected = stats.binomtest(right, examples).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)
