from math import hypot

import numpy as np
import pytest
from scipy import stats

from measure.proportions import difference_by_reference, unpaired_difference


@pytest.mark.parametrize(("base", "later", "examples"), [(60, 52, 80), (838, 829, 1000), (5, 9, 10)])
def test_unpaired_shares_are_newcombes(base: int, later: int, examples: int) -> None:
    """Each end is off by the root of the squares of what Wilson's intervals reach on that side."""
    one, other = (stats.binomtest(right, examples).proportion_ci(method="wilson") for right in (base, later))
    found = unpaired_difference(base, later, examples)
    p, q = base / examples, later / examples
    assert found.estimate == pytest.approx(q - p)
    assert found.low == pytest.approx(q - p - hypot(q - other.low, one.high - p), abs=2e-5)
    assert found.high == pytest.approx(q - p + hypot(other.high - q, p - one.low), abs=2e-5)


@pytest.mark.parametrize(("base", "later"), [(0, 0), (50, 50), (0, 50), (50, 0)])
def test_ends_stay_numbers_at_the_edges(base: int, later: int) -> None:
    found = unpaired_difference(base, later, 50)
    assert found.low is not None
    assert found.high is not None
    assert -1.001 <= found.low <= found.estimate <= found.high <= 1.001
    assert found.low < found.high


def test_by_the_reference_is_agresti_and_mins_with_the_most_pairs_that_can_differ() -> None:
    """By hand: gains of -2 and 3, 5 more; at most 41 pairs differ; 5/1002 ∓ 1.96·√(42 - 25/1002)/1002."""
    found = difference_by_reference((9, 11), (12, 9), 1000)
    assert found.estimate == pytest.approx(0.005)
    assert (found.low, found.high) == pytest.approx((-0.0076831, 0.0176632), abs=1e-6)


def test_the_bound_on_the_pairs_holds_whatever_the_answers() -> None:
    """Answers are drawn for a reference and two candidates; the true number of differing pairs is never more."""
    random = np.random.default_rng(2005)
    for _ in range(200):
        right = random.random((3, 60)) < random.random((3, 1))
        reference, base, later = right
        counts = [(int((one & ~reference).sum()), int((~one & reference).sum())) for one in (base, later)]
        assert (base != later).sum() <= sum(counts[0]) + sum(counts[1])
        found = difference_by_reference(counts[0], counts[1], 60)
        assert found.estimate == pytest.approx(later.mean() - base.mean())


def test_it_is_narrower_than_unpaired_where_answers_agree_with_the_reference() -> None:
    paired, unpaired = difference_by_reference((9, 11), (10, 12), 1000), unpaired_difference(838, 838, 1000)
    assert paired.high is not None
    assert unpaired.high is not None
    assert paired.high < unpaired.high / 2
