"""Answers to questions judged by their words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.examples import Examples
from artifact.judged import Judged
from artifact.predict.tokens import TextLimits
from errors import UserError
from measure.decisions import decisions
from measure.records import Quality
from measure.reference import Reference
from measure.spans import Question, assess_spans, check_room
from measure.workload import tokenizing

CONTEXT = "The old film, a warm one."
WORDS = ((0, 0), (0, 3), (4, 7), (8, 12), (12, 13), (14, 15), (16, 20), (21, 24), (24, 25), (0, 0))
"""Where tokens lie: one of a question, then the words and signs of the context, then the end."""


def asked(*answers: str, none_is_said: bool = False) -> Question:
    return Question(CONTEXT, WORDS, answers, none_is_said)


def judge(answers: list[list[float]], known: list[list[float]], truth: list[Question]) -> Quality:
    arrays = [np.array(rows, dtype=np.float32) for rows in (answers, known)]
    return assess_spans(arrays[0], Reference("the reference", arrays[1]), truth, batch_size=None, seconds_s=1)


@pytest.mark.parametrize(
    ("first", "last", "answer", "right"),
    [
        (1, 3, "The old film", True),
        (2, 4, "the OLD film", True),  # an article, capitals and a comma do not count
        (2, 3, "old", False),
        (6, 7, "a warm one", True),
        (0, 0, "film", False),
    ],
)
def test_an_answer_is_right_by_its_words(first: int, last: int, answer: str, right: bool) -> None:
    assert asked("something else", answer).is_right(first, last, 1.0) is right


def test_a_question_without_an_answer_wants_none() -> None:
    assert asked(none_is_said=True).is_right(2, 3, -0.5)
    assert not asked(none_is_said=True).is_right(2, 3, 0.5)


def test_to_say_none_is_wrong_where_others_have_none() -> None:
    """Models that were never taught to say so score their first token anyhow."""
    assert not asked("old film", none_is_said=True).is_right(2, 3, -0.5)
    assert asked("old film", none_is_said=True).is_right(2, 3, 0.5)
    assert asked("old film").is_right(2, 3, -0.5)


def test_every_figure_by_hand() -> None:
    truth = [asked("old film"), asked("warm"), asked("one")]
    found = judge([[2, 3, 1], [6, 7, 1], [6, 7, 4]], [[2, 3, 1], [6, 6, 2], [6, 6, 1]], truth)
    assert (found.examples, found.wins, found.losses) == (3, 0, 1)
    assert found.accuracy_fraction == pytest.approx(1 / 3)
    assert found.reference_accuracy_fraction == pytest.approx(2 / 3)
    assert found.agreement_fraction == pytest.approx(1 / 3)
    assert found.max_error == 3


def test_where_some_have_no_answer_two_that_say_so_agree() -> None:
    truth = [asked("old film", none_is_said=True), asked(none_is_said=True)]
    found = judge([[2, 3, 1], [6, 7, -1]], [[2, 3, 1], [2, 2, -3]], truth)
    assert (found.accuracy_fraction, found.agreement_fraction) == (1, 1)
    found = judge([[2, 3, 1], [6, 7, 1]], [[2, 3, 1], [6, 7, -3]], truth)
    assert (found.accuracy_fraction, found.agreement_fraction, found.losses) == (0.5, 0.5, 1)


def test_a_reference_that_is_no_number_is_wrong_too() -> None:
    broken = [float("nan")] * 3
    found = judge([[2, 3, 1], broken], [broken, broken], [asked("old film"), asked("warm")])
    assert (found.reference_accuracy_fraction, found.wins, found.agreement_fraction, found.max_error) == (0, 1, 0, 0)


def test_what_is_no_number_is_wrong() -> None:
    broken = [float("nan")] * 3
    found = judge([broken, [6, 6, 1]], [[2, 3, 1], [6, 6, 1]], [asked("old film"), asked("warm")])
    assert (found.not_finite, found.losses, found.agreement_fraction) == (1, 1, 0.5)


def best_by_hand(logits: NDArray[np.float32], places: list[int]) -> tuple[int, int]:
    every = [(first, last) for first in places for last in places if first <= last < first + 30]
    return max(every, key=lambda span: float(logits[span[0], 0]) + float(logits[span[1], 1]))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_words_are_those_of_all_pairs(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(60, 2)).astype(np.float32)
    places = list(range(9, 59))
    (found,) = decisions(Judged.SPAN, logits, places)
    first, last = best_by_hand(logits, places)
    assert found[:2].tolist() == [first, last]
    lead = float(logits[first, 0]) + float(logits[last, 1]) - float(logits[0].astype(np.float64).sum())
    assert found[2] == pytest.approx(lead, rel=1e-6)


def test_logits_that_are_no_numbers_give_no_answer() -> None:
    logits = np.zeros((5, 2), dtype=np.float32)
    logits[4, 1] = np.nan
    assert np.isnan(decisions(Judged.SPAN, logits, [1, 2])).all()


def test_a_context_without_tokens_has_a_wrong_answer_and_a_finite_one() -> None:
    (found,) = decisions(Judged.SPAN, np.zeros((5, 2), dtype=np.float32), [])
    assert np.isfinite(found).all()
    assert not Question("", ((0, 0),) * 5, ("film",)).is_right(int(found[0]), int(found[1]), float(found[2]))


def test_a_question_is_not_cut_and_one_that_leaves_no_room_is_named(tiny_checkpoint: Path) -> None:
    limits = TextLimits(max_length_tokens=16, pad_id=0, pad_type_id=0, pad_left=False)
    encoder = tokenizing(tiny_checkpoint, limits, Judged.SPAN)
    pair = ("a warm film " * 3, "it is funny " * 9)
    whole = tokenizing(tiny_checkpoint, replace(limits, max_length_tokens=64), Judged.SPAN).encode([pair])[0]
    found = encoder.encode([pair])[0]
    assert len(found["input_ids"]) == 16
    assert found["token_type_ids"].count(0) == whole["token_type_ids"].count(0)  # the question, and its two signs
    texts = (pair, ("a warm film " * 9, "it"))
    examples = Examples(texts, (("it",),) * 2, Path("data.csv"), "question", "answers", ("row 2", "row 3"))
    with pytest.raises(UserError, match="row 3: the question leaves no room for its context in 16 tokens"):
        check_room(examples, encoder)
