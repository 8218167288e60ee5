"""Scores beside numbers worked out by hand, and intervals beside simulations."""

import numpy as np
import pytest

from models.scores import scores

LABELS = ("a", "b", "c")
TRUTH = (0, 0, 0, 0, 1, 1, 1, 2)
ANSWERS = (0, 0, 0, 1, 1, 1, 0, 1)


def test_scores_are_those_worked_out_by_hand() -> None:
    """a: 3 of 4 found, 4 answered; b: 2 of 3, 4 answered; c: 0 of 1, never answered."""
    found = scores(TRUTH, ANSWERS, LABELS)
    assert [(cell.truth + cell.answer, cell.count) for cell in found.confusion] == [
        *(("aa", 3), ("ab", 1), ("ba", 1), ("bb", 2), ("cb", 1))
    ]
    assert found.accuracy.value == 5 / 8
    assert found.most_frequent == 4 / 8
    a, b, c = (found.labels[name] for name in LABELS)
    assert (a.precision.value, a.recall.value, a.f1.value) == pytest.approx((3 / 4, 3 / 4, 3 / 4))
    assert (b.precision.value, b.recall.value, b.f1.value) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert (c.precision.value, c.recall.value, c.f1.value) == (0, 0, 0)
    assert found.macro.f1.value == pytest.approx((3 / 4 + 4 / 7) / 3)
    assert found.macro.precision.value == pytest.approx((3 / 4 + 2 / 4) / 3)
    assert found.weighted.f1.value == pytest.approx((4 * 3 / 4 + 3 * 4 / 7) / 8)
    assert found.weighted.recall.value == found.accuracy.value


def test_the_same_answers_have_the_same_intervals() -> None:
    assert scores(TRUTH, ANSWERS, LABELS) == scores(TRUTH, ANSWERS, LABELS)


def test_what_is_all_right_or_all_wrong_may_be_otherwise_elsewhere() -> None:
    """Wilson's interval of 3 of 3: from 3 / (3 + 1.96²) to 1."""
    right, wrong = scores((0, 1, 1), (0, 1, 1), ("a", "b")), scores((0, 1, 1), (1, 0, 0), ("a", "b"))
    least = 3 / (3 + 1.96**2)
    assert (right.accuracy.value, right.accuracy.low, right.accuracy.high) == pytest.approx((1, least, 1))
    assert (wrong.accuracy.value, wrong.accuracy.low, wrong.accuracy.high) == pytest.approx((0, 0, 1 - least))


def test_intervals_cover_the_truth_as_often_as_they_promise() -> None:
    """Macro F1 of a classifier that is right in 80 % of the cases, its true value from a sample of 400,000."""
    draw = np.random.default_rng(3)

    def sample(count: int) -> tuple[list[int], list[int]]:
        truth = draw.choice(3, count, p=[0.5, 0.3, 0.2])
        answers = np.where(draw.random(count) < 0.8, truth, draw.choice(3, count))
        return truth.tolist(), answers.tolist()

    true = scores(*sample(400_000), LABELS).macro.f1.value
    tries = [scores(*sample(400), LABELS).macro.f1 for _ in range(300)]
    covered = np.mean([found.low <= true <= found.high for found in tries])
    assert 0.91 <= covered <= 0.98


def test_nothing_has_no_score() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        scores((), (), LABELS)


def test_of_many_labels_only_what_occurs_is_kept() -> None:
    truth = list(range(1000)) * 2
    found = scores(truth, truth, [str(number) for number in range(1000)])
    assert found.macro.f1.value == 1
    assert len(found.confusion) == 1000
