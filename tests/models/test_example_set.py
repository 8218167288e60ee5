from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from errors import UserError
from models.example_set import ExampleSet
from models.metrics import TokenTruth


def ids(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.int64)


TEXTS = ExampleSet(
    rows=tuple({"input_ids": row, "attention_mask": np.ones_like(row)} for row in (ids(5, 6, 7), ids(8), ids(9, 4))),
    titles=("three", "one", "two"),
    truth=(0, 1, 0),
    padding={"input_ids": 3, "attention_mask": 0},
)


def test_shorter_rows_are_filled_to_the_longest_of_the_batch() -> None:
    batch = TEXTS.batch([1, 2])
    assert batch["input_ids"].tolist() == [[8, 3], [9, 4]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["input_ids"].dtype == np.int64


def test_rows_are_filled_to_the_length_and_on_the_side_asked() -> None:
    assert TEXTS.batch([1, 2], lengths={"input_ids": 4}, pad_left=True)["input_ids"].tolist() == [
        [3, 3, 3, 8],
        [3, 3, 9, 4],
    ]
    left = replace(TEXTS, pad_left=True)
    assert left.batch([1, 2])["input_ids"].tolist() == [[3, 8], [9, 4]]
    assert left.batch([1, 2], pad_left=False)["input_ids"].tolist() == [[8, 3], [9, 4]]


def test_a_row_longer_than_the_length_is_our_bug() -> None:
    with pytest.raises(ValueError, match="3 does not fit into 2"):
        TEXTS.batch([0], lengths={"input_ids": 2})


def frames(*shapes: tuple[int, ...], padding: dict[str, float] | None = None) -> ExampleSet:
    rows = tuple({"values": np.full(shape, 2, dtype=np.float32)} for shape in shapes)
    return ExampleSet(rows, tuple(f"file {n}.wav" for n in range(len(rows))), None, padding or {})


def test_rows_of_vectors_are_filled_along_their_first_axis() -> None:
    batch = frames((1, 2), (3, 2), padding={"values": -1.5}).batch([0, 1])["values"]
    assert batch.dtype == np.float32
    assert batch.tolist() == [[[2, 2], [-1.5, -1.5], [-1.5, -1.5]], [[2, 2]] * 3]


@pytest.mark.parametrize(
    ("shapes", "padding"),
    [
        (((2, 3), (2, 3), (4, 3)), {}),
        (((2, 3), (2, 3), (2, 4)), {"values": 0.0}),
        (((2, 3), (2, 3), (2,)), {"values": 0.0}),
    ],
)
def test_rows_that_cannot_be_stacked_are_named_with_their_shapes(
    shapes: tuple[tuple[int, ...], ...], padding: dict[str, float]
) -> None:
    with pytest.raises(UserError) as caught:
        frames(*shapes, padding=padding).batch([1, 2])
    for part in ("values", "file 1.wav", "file 2.wav", str(shapes[1]), str(shapes[2])):
        assert part in caught.value.message


def test_a_length_leaves_inputs_that_are_not_padded_as_they_are() -> None:
    assert frames((2, 3), (2, 3)).batch([0, 1], lengths={"values": 9})["values"].shape == (2, 2, 3)


def test_select_takes_rows_titles_and_truth_in_the_order_asked() -> None:
    picked = TEXTS.select([2, 0])
    assert (len(picked), picked.titles, picked.truth) == (2, ("two", "three"), (0, 0))
    assert picked.batch([0])["input_ids"].tolist() == [[9, 4]]
    assert replace(TEXTS, truth=None).select([0]).truth is None


def test_parts_of_unequal_length_are_our_bug() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        replace(TEXTS, titles=("one",))
    with pytest.raises(ValueError, match="differ in length"):
        replace(TEXTS, truth=(1,))


def test_sha256_is_of_the_content_and_not_of_titles_or_order_of_names() -> None:
    swapped = tuple(dict(reversed(list(row.items()))) for row in TEXTS.rows)
    assert replace(TEXTS, rows=swapped, titles=("a", "b", "c")).sha256 == TEXTS.sha256
    assert len(TEXTS.sha256) == 64


def test_sha256_changes_with_everything_else() -> None:
    first = TEXTS.rows[0]
    changes: list[dict[str, Any]] = [
        {},
        {"truth": (0, 1, 1)},
        {"truth": None},
        {"truth": (frozenset({1, 2}), frozenset(), frozenset())},
        {"truth": (TokenTruth((1,), ("O",), ("O",)),) * 3},
        {"truth": (TokenTruth((1,), ("B-X",), ("O",)),) * 3},
        {"truth": (np.zeros((2, 2), np.int64),) * 3},
        {"truth": (np.ones((2, 2), np.int64),) * 3},
        {"truth": (np.ones((4, 1), np.int64),) * 3},
        {"padding": {"input_ids": 0, "attention_mask": 0}},
        {"pad_left": True},
        {"rows": TEXTS.rows[::-1]},
        {"rows": ({**first, "input_ids": ids(5, 6, 8)}, *TEXTS.rows[1:])},
        {"rows": ({**first, "input_ids": first["input_ids"].astype(np.int32)}, *TEXTS.rows[1:])},
        {"rows": ({**first, "input_ids": first["input_ids"][None]}, *TEXTS.rows[1:])},
        {"rows": tuple({"ids": row["input_ids"], "attention_mask": row["attention_mask"]} for row in TEXTS.rows)},
    ]
    hashes = [replace(TEXTS, **change).sha256 for change in changes]
    assert len(set(hashes)) == len(hashes)


def test_numpys_own_numbers_are_a_truth_like_any_other() -> None:
    assert replace(TEXTS, truth=tuple(np.array([0, 1, 0]))).sha256 == TEXTS.sha256
