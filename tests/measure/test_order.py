"""Scores judged by the order of pairs; scikit-learn's area under the curve is the independent figure."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from measure.order import assess_scores, pairs_of
from measure.records import Quality
from measure.reference import Reference

LABELS = [0.5, 1.0, 2.0, 3.5, 4.0, 9.0]


def judge(scores: list[float], known: list[float], labels: list[float] = LABELS) -> Quality:
    arrays = [np.array(values, dtype=np.float32)[:, None] for values in (scores, known)]
    return assess_scores(arrays[0], Reference("the reference", arrays[1]), labels, batch_size=None, seconds_s=1)


@pytest.mark.parametrize("labels", [[1.0, 2.0], [1.0, 1.0, 2.0], [0.0] * 9 + [1.0], list(range(100))])
def test_each_text_is_in_one_pair_at_most_and_pairs_differ(labels: list[float]) -> None:
    pairs = pairs_of(np.array(labels, dtype=np.float64))
    assert len(pairs) >= 1
    assert len(set(pairs.ravel().tolist())) == 2 * len(pairs)
    assert all(labels[first] != labels[second] for first, second in pairs)


def test_different_numbers_make_as_many_pairs_as_there_can_be() -> None:
    assert len(pairs_of(np.arange(101.0))) == 50


def test_equal_labels_rank_nothing() -> None:
    with pytest.raises(ValueError, match="all labels are equal"):
        pairs_of(np.ones(8))


def test_the_right_order_is_right_whatever_the_scale() -> None:
    found = judge([label**3 - 100 for label in LABELS], LABELS)
    assert (found.examples, found.accuracy_fraction, found.agreement_fraction) == (3, 1, 1)
    assert found.max_error > 100


def test_the_reverse_loses_every_pair() -> None:
    found = judge([-label for label in LABELS], LABELS)
    assert (found.accuracy_fraction, found.reference_accuracy_fraction) == (0, 1)
    assert (found.wins, found.losses, found.agreement_fraction) == (0, 3, 0)
    pairs = pairs_of(np.array(LABELS))
    leads = sorted((abs(LABELS[first] - LABELS[second]) for first, second in pairs), reverse=True)
    assert found.flip_margins == pytest.approx(leads)


def test_equal_scores_are_not_right() -> None:
    assert judge([1.0] * 6, LABELS).accuracy_fraction == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_wrong(value: float) -> None:
    scores = list(LABELS)
    scores[0] = value
    found = judge(scores, LABELS)
    assert (found.not_finite, found.losses) == (1, 1)
    assert found.accuracy_fraction == pytest.approx(2 / 3)


def test_of_two_values_it_estimates_the_area_under_the_curve() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 40_000)
    scores: NDArray[np.float64] = random.normal(size=len(labels)) + labels
    found = judge(scores.tolist(), scores.tolist(), labels.tolist())
    assert found.accuracy_fraction == pytest.approx(roc_auc_score(labels, scores), abs=0.012)


def test_another_number_of_scores_is_an_error() -> None:
    with pytest.raises(ValueError, match="5 answers, 6 reference answers, 6 labels"):
        judge(LABELS[:5], LABELS)


def test_a_reference_that_is_no_number_ranks_nothing_and_leaves_no_margin() -> None:
    found = judge(LABELS, [float("nan"), *LABELS[1:]])
    assert (found.wins, found.losses, found.flip_margins) == (1, 0, ())
    assert np.isfinite(found.max_error)
