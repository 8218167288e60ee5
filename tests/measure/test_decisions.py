from pathlib import Path

import numpy as np
import pytest

from artifact.examples import Examples, Label
from artifact.judged import Judged, judged_of
from artifact.predict.tokens import TextItem
from artifact.task import Activation, Task
from errors import UserError
from measure.decisions import UNLABELLED, decisions, groups, quantities, right_decisions

NAMES = ("neg", "pos")


def examples_of(*labels: Label, texts: tuple[TextItem, ...] | None = None) -> Examples:
    places = tuple(f"data.csv, row {number}" for number in range(7, 7 + len(labels)))
    return Examples(texts or ("a",) * len(labels), labels, Path("data.csv"), "text", "label", places)


@pytest.mark.parametrize(
    ("task", "activation", "labels", "judged"),
    [
        (Task.TEXT_CLASSIFICATION, Activation.SOFTMAX, 2, Judged.TEXT),
        (Task.TEXT_CLASSIFICATION, Activation.SIGMOID, 3, Judged.LABEL),
        (Task.TEXT_CLASSIFICATION, Activation.SIGMOID, 1, Judged.SCORE),
        (Task.TEXT_CLASSIFICATION, Activation.NONE, 1, Judged.SCORE),
        (Task.TEXT_CLASSIFICATION, Activation.NONE, 2, None),
        (Task.TOKEN_CLASSIFICATION, Activation.SOFTMAX, 9, Judged.WORD),
        (Task.FEATURE_EXTRACTION, Activation.SOFTMAX, 2, Judged.VECTOR),
        (Task.QUESTION_ANSWERING, Activation.SOFTMAX, 2, Judged.SPAN),
        (Task.FILL_MASK, Activation.SOFTMAX, 2, None),
    ],
)
def test_what_is_judged_follows_from_the_task(
    task: Task, activation: Activation, labels: int, judged: Judged | None
) -> None:
    assert judged_of(task, activation, labels) is judged


def test_a_text_is_one_decision() -> None:
    assert decisions(Judged.TEXT, np.array([0.1, -3.0, 2.0], dtype=np.float32), ()).argmax(-1).tolist() == [2]


def test_each_label_is_a_decision_and_applies_from_a_logit_above_zero() -> None:
    found = decisions(Judged.LABEL, np.array([0.1, -3.0, 2.0], dtype=np.float32), ())
    assert found.argmax(-1).tolist() == [1, 0, 1]
    assert found.dtype == np.float32


def test_a_word_is_decided_at_its_place_alone() -> None:
    logits = np.array([[9, 0], [0, 9], [9, 0], [0, 9]], dtype=np.float32)
    assert decisions(Judged.WORD, logits, [1, 2]).argmax(-1).tolist() == [1, 0]
    assert decisions(Judged.WORD, logits, []).shape == (0, 2)


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        (("pos", "neg"), ("neg", "pos"), [1, 0]),
        (("1", "0"), ("neg", "pos"), [1, 0]),
        (("1", "0"), ("1", "0"), [0, 1]),  # a name wins over a position
    ],
)
def test_labels_are_names_or_positions(labels: tuple[str, ...], names: tuple[str, ...], indices: list[int]) -> None:
    assert right_decisions(Judged.TEXT, examples_of(*labels), names, ()) == indices


@pytest.mark.parametrize("label", ["meh", "2", "-1"])
def test_an_unknown_label_is_named_with_its_row(label: str) -> None:
    with pytest.raises(UserError, match=rf"data\.csv, row 8: unknown label '{label}'") as caught:
        right_decisions(Judged.TEXT, examples_of("pos", label), NAMES, ())
    assert "neg, pos" in caught.value.hint


def test_every_label_of_an_example_is_right_or_wrong() -> None:
    labels = (("c", "a"), (), ("b",))
    found = right_decisions(Judged.LABEL, examples_of(*labels), ("a", "b", "c"), ())
    assert found == [1, 0, 1, 0, 0, 0, 0, 1, 0]


def test_words_that_were_cut_off_are_not_judged() -> None:
    examples = examples_of(("O", "B", "O"), ("B",), texts=(["in", "Rome", "now"], ["Ada"]))
    assert right_decisions(Judged.WORD, examples, ("O", "B"), ((1, 3, -1), (1,))) == [0, 1, 1]


def test_a_tag_too_few_is_told() -> None:
    examples = examples_of(("O", "B"), ("B",), texts=(["in", "Rome"], ["Ada", "came"]))
    with pytest.raises(UserError, match=r"data\.csv, row 8: there is not one tag for each word"):
        right_decisions(Judged.WORD, examples, ("O", "B"), ((1, 2), (1, 2)))


def test_texts_of_one_label_are_one_group() -> None:
    found = groups(examples_of("a", "b", "a", "c"))
    assert found[0] == found[2] != found[1] != found[3]
    assert UNLABELLED not in found
    assert groups(examples_of("", "", "")) == [UNLABELLED] * 3


@pytest.mark.parametrize(("labels", "what"), [(("a", "a", "a"), "all texts have"), (("a", "b", "c"), "no two texts")])
def test_labels_that_decide_nothing_are_refused(labels: tuple[str, ...], what: str) -> None:
    with pytest.raises(UserError, match=what):
        groups(examples_of(*labels))


def test_one_text_has_no_neighbour() -> None:
    with pytest.raises(UserError, match="has one text"):
        groups(examples_of("a"))


def test_quantities_are_numbers() -> None:
    assert quantities(examples_of("1", " 2.5", "-3e2")) == [1, 2.5, -300]


def test_equal_quantities_rank_nothing() -> None:
    with pytest.raises(UserError, match="all labels are 1, so no text ranks above another"):
        quantities(examples_of("1", "1.0"))
