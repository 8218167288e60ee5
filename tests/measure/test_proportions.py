from math import hypot

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from artifact.intervals import Interval, paired_difference
from measure.proportions import difference_by_reference, gains_of_texts, unpaired_difference
from measure.records import Quality, TextGains
from models.metrics import Metric, compare


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


def scored(wins: int, losses: int, examples: int = 1000) -> Quality:
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
    )


def of_texts(gains: NDArray[np.int64], sizes: NDArray[np.int64]) -> Quality:
    """Decisions that were gained (1) or lost (-1), so many of each text."""
    score = scored(int((gains == 1).sum()), int((gains == -1).sum()), len(gains))
    return msgspec.structs.replace(score, by_text=gains_of_texts(gains, sizes))


def covers(found: Interval, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


def test_gains_of_texts_by_hand() -> None:
    """Texts gain 1, -2 and 1 of 2, 3 and 1 decisions, 0 in all: 1 + 4 + 1, in units of a text of 2. Then 2, 1 and 1 of
    as many, 4 of 6: the residuals are 2/3, -1 and 1/3, and half of each is added to 2/3."""
    sizes = np.array([2, 3, 1])
    found = gains_of_texts(np.array([1, 0, -1, -1, 0, 1]), sizes)
    assert (found.texts, found.largest) == (3, 1)
    assert found.squares == pytest.approx(6 / 4)
    found = gains_of_texts(np.array([0, 0, -1, 0, 0, 0]), sizes)
    assert found.largest == 0.5  # one decision, where a text has two on average
    assert msgspec.json.decode(msgspec.json.encode(found), type=TextGains) == found
    expected = (2 / 3 + 1 / 3) ** 2 + (2 / 3 - 1 / 2) ** 2 + (2 / 3 + 1 / 6) ** 2
    assert gains_of_texts(np.array([1, 1, 0, 1, 0, 1]), sizes).squares == pytest.approx(expected)


def test_it_is_the_metric_of_an_export() -> None:
    """The same texts, one of them lost as a whole, judged by what an export's gate has: sums over texts and the
    jackknife."""
    random = np.random.default_rng(3)
    sizes = np.array([29, *random.integers(1, 30, 199)])
    right, reference = (random.random(sizes.sum()) < share for share in (0.8, 0.9))
    right[:29], reference[:29] = False, True
    starts = np.cumsum(sizes) - sizes
    rows = [np.stack([np.add.reduceat(hits.astype(float), starts), sizes], -1) for hits in (right, reference)]
    metric = Metric("share", lambda outputs, truth: np.zeros(2), lambda sums: sums[..., 0] / sums[..., 1])
    expected = compare(metric, rows[0], rows[1]).difference
    found = of_texts(right.astype(np.int64) - reference, sizes).difference
    assert [found.estimate, found.low, found.high] == pytest.approx(
        [expected.estimate, expected.low, expected.high], abs=2e-4
    )


def test_texts_of_one_decision_are_independent_ones() -> None:
    gains = np.random.default_rng(4).choice([-1, 0, 1], 500, p=[0.1, 0.85, 0.05])
    texts = of_texts(gains, np.ones(500, dtype=np.int64))
    plain = scored(texts.wins, texts.losses, 500).difference
    assert [texts.difference.low, texts.difference.high] == pytest.approx([plain.low, plain.high])


@pytest.mark.parametrize(("texts", "words"), [(80, 20), (40, 20), (20, 30), (5, 100), (1, 500)])
def test_few_texts_that_do_not_differ_do_not_exclude_that_some_do(texts: int, words: int) -> None:
    """No text in 80 is lost, and the interval reaches to one in 80 at least, however many words these have."""
    found = of_texts(np.zeros(texts * words, dtype=np.int64), np.full(texts, words)).difference
    assert covers(found, -1 / texts if texts > 2 else -0.3)


@pytest.mark.parametrize(
    ("texts", "lost", "least"), [(80, "beta", 0.91), (20, "beta", 0.88), (80, 0.02, 0.93), (40, 0.02, 0.95)]
)
def test_intervals_cover_the_truth_where_decisions_of_a_text_go_together(
    texts: int, lost: str | float, least: float
) -> None:
    """Each text has a chance of its own that its words are lost, one in ten on average; or is lost as a whole.
    Intervals that take words for independent ones are too narrow."""
    random, covered, narrow, repeats = np.random.default_rng(6), 0, 0, 1000
    truth = -0.1 if isinstance(lost, str) else -lost
    for _ in range(repeats):
        sizes = random.integers(5, 40, texts)
        chances = random.beta(0.3, 2.7, texts) if isinstance(lost, str) else (random.random(texts) < lost).astype(float)
        gains = -(random.random(sizes.sum()) < np.repeat(chances, sizes)).astype(np.int64)
        found = of_texts(gains, sizes)
        covered += covers(found.difference, truth)
        narrow += covers(scored(found.wins, found.losses, len(gains)).difference, truth)
    assert covered / repeats >= least
    assert narrow / repeats < 0.8


def test_by_the_reference_texts_scatter_at_most_twice() -> None:
    """Both runs have the same texts; (a - b)² ≤ 2a² + 2b² holds for every one of them."""
    random = np.random.default_rng(8)
    sizes = np.full(40, 5)
    base, later = (random.choice([-1, 0, 1], 200, p=[0.1, 0.8, 0.1]) for _ in range(2))
    found = difference_by_reference(of_texts(base, sizes), of_texts(later, sizes))
    total = float((later - base).sum())
    true = gains_of_texts(later - base, sizes)
    known = paired_difference(40 * total / 200, true.squares, 40, true.largest)
    assert found.estimate == pytest.approx(known.estimate)
    assert known.low is not None
    assert known.high is not None
    assert covers(found, known.low)
    assert covers(found, known.high)


def test_single_decisions_lost_here_and_there_make_no_wide_interval() -> None:
    """As in language models, where a few of many tokens change: nearly as if all were independent."""
    random = np.random.default_rng(11)
    gains = random.choice([-1, 0, 1], 60 * 25, p=[0.02, 0.965, 0.015])
    found = of_texts(gains, np.full(60, 25))
    wide, plain = found.difference, scored(found.wins, found.losses, len(gains)).difference
    assert wide.low is not None
    assert plain.low is not None
    assert wide.estimate - wide.low < 1.5 * (plain.estimate - plain.low)
