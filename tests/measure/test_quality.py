import numpy as np
import pytest
from numpy.typing import NDArray

from measure.quality import assess
from measure.records import Quality
from measure.reference import Reference

KNOWN = np.array([[0, 3], [2, 1], [0, 0.5], [1, 5], [4, 0], [1, 0]], dtype=np.float32)  # answers 1 0 1 1 0 0
LABELS = [1, 0, 0, 1, 1, 0]  # the reference is right but for rows 2 and 4
ANSWERS = np.array([[0, 3.25], [1, 2], [1, 0.5], [1, 5], [4, 0], [0, 1]], dtype=np.float32)  # 1 1 0 1 0 1


def judge(logits: NDArray[np.float32], known: NDArray[np.float32] = KNOWN) -> Quality:
    return assess(logits, Reference("the reference", known), LABELS, batch_size=8, seconds_s=2.5)


def test_every_figure_by_hand() -> None:
    found = judge(ANSWERS)
    assert (found.reference, found.batch_size, found.examples, found.seconds_s) == ("the reference", 8, 6, 2.5)
    assert found.accuracy_fraction == pytest.approx(3 / 6)  # rows 0, 2 and 3
    assert found.commonest_fraction == 3 / 6
    assert found.reference_accuracy_fraction == pytest.approx(4 / 6)
    assert (found.wins, found.losses) == (1, 2)  # row 2; rows 1 and 5
    assert found.agreement_fraction == pytest.approx(3 / 6)
    assert found.flip_margins == (1, 1, 0.5)  # rows 1, 5 and 2
    assert found.max_error == 1


def test_the_reference_agrees_with_itself() -> None:
    found = judge(KNOWN)
    assert (found.agreement_fraction, found.wins, found.losses, found.max_error) == (1, 0, 0, 0)
    assert found.flip_margins == ()
    assert found.accuracy_fraction == found.reference_accuracy_fraction == pytest.approx(4 / 6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", range(6))
def test_a_row_that_is_not_finite_is_wrong_and_flipped(row: int, value: float) -> None:
    """Even where the largest finite number is the right label's: argmax alone would have called some of them right."""
    logits = KNOWN.copy()
    logits[row, 1 - LABELS[row]] = value
    found = judge(logits)
    right = [1, 1, 0, 1, 0, 1]
    assert found.accuracy_fraction == pytest.approx((4 - right[row]) / 6)
    assert (found.wins, found.losses) == (0, right[row])
    assert found.agreement_fraction == pytest.approx(5 / 6)
    assert found.max_error > 0


def test_all_rows_broken_is_no_accuracy_at_all() -> None:
    found = judge(np.full_like(KNOWN, np.nan))
    assert (found.accuracy_fraction, found.agreement_fraction, found.wins, found.losses) == (0, 0, 0, 4)


def test_the_twenty_largest_margins_are_kept() -> None:
    known = np.array([[0, number] for number in range(1, 31)], dtype=np.float32)
    found = assess(-known, Reference("r", known), [0] * 30, batch_size=None, seconds_s=1)
    assert found.flip_margins == tuple(range(30, 10, -1))
    assert (found.wins, found.losses) == (30, 0)


def test_margins_are_the_lead_over_the_second_of_many_labels() -> None:
    known = np.array([[5, 1, 4.5, 0]], dtype=np.float32)
    found = assess(np.array([[0, 0, 0, 1]], dtype=np.float32), Reference("r", known), [0], batch_size=None, seconds_s=1)
    assert found.flip_margins == (0.5,)


@pytest.mark.parametrize("rows", [0, 5, 7])
def test_another_number_of_answers_is_an_error(rows: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} answers, 6 reference answers, 6 labels"):
        judge(np.zeros((rows, 2), dtype=np.float32))
