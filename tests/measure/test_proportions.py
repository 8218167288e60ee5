from math import hypot

import msgspec
import numpy as np
import pytest
from scipy import stats

from artifact.intervals import paired_difference
from measure.proportions import difference_by_reference, squares_of_texts, unpaired_difference
from measure.records import Quality


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
    found = difference_by_reference(scored(9, 11), scored(12, 9))
    assert found.estimate == pytest.approx(0.005)
    assert (found.low, found.high) == pytest.approx((-0.0076831, 0.0176632), abs=1e-6)


def test_the_bound_on_the_pairs_holds_whatever_the_answers() -> None:
    """Answers are drawn for a reference and two candidates; the true number of differing pairs is never more."""
    random = np.random.default_rng(2005)
    for _ in range(200):
        right = random.random((3, 60)) < random.random((3, 1))
        reference, base, later = right
        scores = [scored(int((one & ~reference).sum()), int((~one & reference).sum()), 60) for one in (base, later)]
        assert (base != later).sum() <= sum(score.wins + score.losses for score in scores)
        found = difference_by_reference(*scores)
        assert found.estimate == pytest.approx(later.mean() - base.mean())


def test_it_is_narrower_than_unpaired_where_answers_agree_with_the_reference() -> None:
    paired, unpaired = difference_by_reference(scored(9, 11), scored(10, 12)), unpaired_difference(838, 838, 1000)
    assert paired.high is not None
    assert unpaired.high is not None
    assert paired.high < unpaired.high / 2


def scored(wins: int, losses: int, examples: int = 1000, squares: float | None = None) -> Quality:
    return Quality(
        reference="r",
        batch_size=None,
        examples=examples,
        accuracy_fraction=0.5,
        reference_accuracy_fraction=0.5,
        agreement_fraction=1,
        wins=wins,
        losses=losses,
        max_error=0,
        flip_margins=(),
        seconds_s=1,
        squares=squares,
    )


def test_squares_of_texts_by_hand() -> None:
    """Texts gain 1, -2 and 1 of 2, 3 and 1 decisions, 0 in all: 1 + 4 + 1, times 3 / 2. Then 2, 1 and 1 of as many,
    4 of 6: the residuals are 2/3, -1 and 1/3."""
    texts = (2, 3, 0, 1)
    assert squares_of_texts(np.array([1, 0, -1, -1, 0, 1]), texts) == pytest.approx(9)
    expected = (4 / 9 + 1 + 1 / 9) * 3 / 2 + 16 / 8
    assert squares_of_texts(np.array([1, 1, 0, 1, 0, 1]), texts) == pytest.approx(expected)


def test_fewer_than_two_texts_tell_no_scatter() -> None:
    assert squares_of_texts(np.array([1, 0, -1]), (3,)) is None
    assert squares_of_texts(np.array([1, 0, -1]), (0, 3)) is None


def test_texts_of_one_decision_are_independent_ones() -> None:
    gains = np.random.default_rng(4).choice([-1, 0, 1], 500, p=[0.1, 0.85, 0.05])
    plain = scored(int((gains == 1).sum()), int((gains == -1).sum()), 500)
    texts = msgspec.structs.replace(plain, squares=squares_of_texts(gains, (1,) * 500))
    assert [texts.difference.low, texts.difference.high] == pytest.approx(
        [plain.difference.low, plain.difference.high], abs=2e-4
    )


def test_intervals_cover_the_truth_where_decisions_of_a_text_go_together() -> None:
    """Each text has a chance of its own that its decisions are lost: as many intervals cover the true mean loss as
    should, and those that take decisions for independent ones are too narrow."""
    random, covered, narrow, repeats = np.random.default_rng(6), 0, 0, 1500
    for _ in range(repeats):
        sizes = random.integers(5, 40, 80)
        chances = np.repeat(random.beta(0.3, 2.7, len(sizes)), sizes)  # one in ten on average
        gains = -(random.random(len(chances)) < chances).astype(np.int64)
        plain = scored(0, int(-gains.sum()), len(gains))
        found = msgspec.structs.replace(plain, squares=squares_of_texts(gains, sizes.tolist())).difference
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= -0.1 <= found.high
        other = plain.difference
        assert other.low is not None
        assert other.high is not None
        narrow += other.low <= -0.1 <= other.high
    assert 0.92 <= covered / repeats <= 0.97
    assert narrow / repeats < 0.75


def test_by_the_reference_texts_scatter_at_most_twice() -> None:
    """Both runs have the same texts; (a - b)² ≤ 2a² + 2b² holds for every one of them."""
    random = np.random.default_rng(8)
    sizes = (5,) * 40
    base, later = (random.choice([-1, 0, 1], 200, p=[0.1, 0.8, 0.1]) for _ in range(2))
    scores = [
        scored(int((gains == 1).sum()), int((gains == -1).sum()), 200, squares_of_texts(gains, sizes))
        for gains in (base, later)
    ]
    found, true = difference_by_reference(*scores), squares_of_texts(later - base, sizes)
    assert true is not None
    known = paired_difference(float((later - base).sum()), true, 200)
    assert found.estimate == pytest.approx(known.estimate)
    assert found.low is not None
    assert found.high is not None
    assert known.low is not None
    assert known.high is not None
    assert found.low <= known.low < known.high <= found.high
