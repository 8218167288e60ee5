import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.task import Task
from errors import UserError
from models.checkpoint import load_tokenizer
from models.example_set import ExampleSet
from models.metrics import ANSWER_F1, MASKED_ACCURACY, SPAN_F1, AnswerTruth, TokenTruth
from models.rows import Columns
from models.task_examples import read_arrays, read_task_examples
from tests.conftest import TEXTS

LABELS = ("negative", "positive")
TAGS = ("O", "B-PER", "I-PER", "B-LOC")


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> Any:
    return load_tokenizer(tiny_checkpoint)


def table(path: Path, *rows: tuple[Any, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)
    return path


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, tokenizer: Any, task: Task = Task.TEXT_CLASSIFICATION, **options: Any) -> ExampleSet:
    usual = {"max_length": 64, "labels": LABELS, "problem": None, "columns": Columns(), "limit": None}
    return read_task_examples(path, task, tokenizer, **{**usual, **options})


def padded(examples: ExampleSet) -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in examples.batch(range(len(examples))).items()}


# Texts and pairs


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_batches_are_those_of_the_tokenizer(tmp_path: Path, tokenizer: Any, suffix: str) -> None:
    rows = [(text, n % 2) for n, text in enumerate(TEXTS)]
    found = read(table(tmp_path / f"data{suffix}", ("text", "label"), *rows), tokenizer, max_length=8)
    expected = tokenizer(list(TEXTS), truncation=True, max_length=8, padding=True)
    assert padded(found) == dict(expected)
    assert set(padded(found)) == set(tokenizer.model_input_names)
    assert found.titles == TEXTS
    assert found.truth == (0, 1, 0, 1, 0, 1)
    assert {array.dtype for row in found.rows for array in row.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("first", "second"),
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text", "text_pair")],
)
def test_pairs_are_encoded_as_the_tokenizer_does(tmp_path: Path, tokenizer: Any, first: str, second: str) -> None:
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[4], TEXTS[5])]
    path = table(tmp_path / "data.csv", ("id", second, first, "label"), *((1, b, a, "positive") for a, b in pairs))
    found = read(path, tokenizer, max_length=12)
    firsts, seconds = map(list, zip(*pairs, strict=True))
    expected = tokenizer(firsts, seconds, truncation="longest_first", max_length=12, padding=True)
    assert padded(found) == dict(expected)
    assert 1 in padded(found)["token_type_ids"][0]
    assert found.titles[0] == f"{TEXTS[0]} | {TEXTS[1]}"


def test_padding_is_the_tokenizers(tmp_path: Path, tokenizer: Any) -> None:
    found = read(table(tmp_path / "data.csv", ("text",), ("a",)), tokenizer)
    assert found.padding == {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}
    assert not found.pad_left


def test_a_tokenizer_that_pads_left_without_a_pad_token_is_followed(tmp_path: Path, tiny_checkpoint: Path) -> None:
    other = load_tokenizer(tiny_checkpoint)
    other.padding_side, other.pad_token = "left", "[SEP]"
    path = table(tmp_path / "data.csv", ("text",), ("best",), ("the best film",))
    found = read(path, other)
    assert padded(found) == dict(other(["best", "the best film"], padding=True))
    assert found.padding["input_ids"] == other.sep_token_id != 0
    other.pad_token = None
    assert read(path, other).padding["input_ids"] == 0


def test_named_columns_win_over_usual_ones(tmp_path: Path, tokenizer: Any) -> None:
    header = ("text", "text_pair", "label", "body", "other", "stars")
    path = table(tmp_path / "data.csv", header, ("a", "b", "negative", "c", "d", "positive"))
    found = read(path, tokenizer, columns=Columns("body", "other", "stars"))
    assert (found.titles, found.truth) == (("c | d",), (1,))


def test_of_names_that_differ_in_case_the_first_is_taken(tmp_path: Path, tokenizer: Any) -> None:
    path = table(tmp_path / "data.csv", ("Text", "text", "LABEL"), ("a", "b", "positive"))
    assert (read(path, tokenizer).titles, read(path, tokenizer).truth) == (("a",), (1,))


@pytest.mark.parametrize(
    ("task", "columns", "message", "hint"),
    [
        (Task.TEXT_CLASSIFICATION, Columns(text="body"), "no column 'body'", "--text-column"),
        (Task.TEXT_CLASSIFICATION, Columns(pair="body"), "no column 'body'", "--pair-column"),
        (Task.TEXT_CLASSIFICATION, Columns(label="body"), "no column 'body'", "--label-column"),
        (Task.FILL_MASK, Columns(label="label"), "no use for the column 'label'", "--label-column"),
        (Task.FEATURE_EXTRACTION, Columns(pair="label"), "no use for the column 'label'", "--pair-column"),
        (Task.QUESTION_ANSWERING, Columns(text="text"), "no column named context", "--pair-column"),
        (Task.TOKEN_CLASSIFICATION, Columns(), "no column named tokens or words", "--text-column"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_its_flag(
    tmp_path: Path, tokenizer: Any, task: Task, columns: Columns, message: str, hint: str
) -> None:
    path = table(tmp_path / "data.csv", ("text", "label"), ("a", "positive"))
    with pytest.raises(UserError, match=message) as caught:
        read(path, tokenizer, task, columns=columns)
    assert hint in caught.value.hint
    assert str(path) in caught.value.message


def test_only_as_many_rows_as_asked_are_read(tmp_path: Path, tokenizer: Any) -> None:
    path = table(tmp_path / "data.csv", ("text", "label"), ("a", 0), ("b", 1), ("", "broken"))
    assert read(path, tokenizer, limit=2).titles == ("a", "b")
    assert len(read(path, tokenizer, limit=1)) == 1


@pytest.mark.parametrize("task", [Task.IMAGE_SEGMENTATION, Task.SPEECH_RECOGNITION, Task.MODULE])
def test_a_task_that_takes_no_text_is_told(tmp_path: Path, tokenizer: Any, task: Task) -> None:
    with pytest.raises(UserError, match=f"a model for {task} takes none"):
        read(table(tmp_path / "data.csv", ("text",), ("a",)), tokenizer, task)


# Labels


@pytest.mark.parametrize(
    ("problem", "labels", "values", "truth"),
    [
        (None, LABELS, ["positive", "negative"], (1, 0)),
        (None, LABELS, [1, 0], (1, 0)),
        ("single_label_classification", ("1", "0"), ["1", "0"], (0, 1)),  # a name wins over a position
        ("multi_label_classification", ("a", "b", "c"), [["a", "c"], []], ({0, 2}, set())),
        ("multi_label_classification", ("a", "b", "c"), ["b|c", "a"], ({1, 2}, {0})),
        ("multi_label_classification", ("a", "b", "c"), ['["c"]', "[]"], ({2}, set())),
        ("multi_label_classification", ("a", "b", "c"), [[2, 0], 1], ({0, 2}, {1})),
        ("regression", ("score",), ["1.5", -2], (1.5, -2.0)),
        (None, ("score",), [0.25, "1e1"], (0.25, 10.0)),
        (None, LABELS, ["", " "], None),
    ],
)
def test_labels_are_what_the_problem_wants(
    tmp_path: Path, tokenizer: Any, problem: str | None, labels: tuple[str, ...], values: list[Any], truth: Any
) -> None:
    path = lines(tmp_path / "data.jsonl", *({"text": "a", "label": value} for value in values))
    assert read(path, tokenizer, problem=problem, labels=labels).truth == truth


def test_texts_without_labels_have_no_truth(tmp_path: Path, tokenizer: Any) -> None:
    assert read(table(tmp_path / "data.csv", ("text",), ("a",), ("b",)), tokenizer).truth is None
    assert read(table(tmp_path / "named.csv", ("text", "label"), ("a", "")), tokenizer).truth is None


def test_a_column_without_a_name_is_not_taken_for_a_label(tmp_path: Path, tokenizer: Any) -> None:
    """pandas writes its index so."""
    assert read(table(tmp_path / "data.csv", ("", "text"), (0, "a"), (1, "b")), tokenizer).truth is None


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a", "label": 0}, {"text": "b"}], {}, "row 2: column 'label' has no label"),
        ([{"text": "a"}, {"text": "b", "label": 0}], {}, "row 1: column 'label' has no label"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": " "}], {}, "row 2: column 'label' has no label"),
        ([{"text": "a", "label": "positive"}, {"text": "b", "label": "meh"}], {}, "row 2: unknown label 'meh'"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 2}], {}, "row 2: unknown label '2'"),
        ([{"text": "a", "label": "positive"}, {"text": "b", "label": 1}], {}, "row 2: unknown label '1'"),
        (
            [{"text": "a", "label": "positive|meh"}],
            {"problem": "multi_label_classification"},
            "row 1: unknown label 'meh'",
        ),
        ([{"text": "a", "label": "four"}], {"problem": "regression"}, "row 1: the label 'four' is not a number"),
        ([{"text": "a", "label": "nan"}], {"problem": "regression"}, "row 1: the label 'nan' is not a number"),
        ([{"text": "a", "label": [1]}], {"problem": "regression"}, "row 1: the label '.1.' is not a number"),
        ([{"text": "a"}, {"text": " "}], {}, "row 2: column 'text' is empty"),
        ([{"text": "a"}, {"text": ["b"]}], {}, "row 2: column 'text' is empty or not text"),
        ([{"text": "a", "text2": "b"}, {"text": "a"}], {}, "row 2: column 'text2' is empty"),
        ([], {}, "holds no examples"),
        ([{"text": "a"}], {"limit": 0}, "holds no examples"),
        ([{"text": "a", "label": 0}], {"problem": "ranking"}, "problem_type 'ranking'"),
    ],
)
def test_a_bad_row_is_named(
    tmp_path: Path, tokenizer: Any, rows: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(lines(tmp_path / "data.jsonl", *rows), tokenizer, **options)
    assert caught.value.hint


# Words and tags

ADA = ["the", "xylo", "film", "best"]


@pytest.mark.parametrize("columns", [("tokens", "ner_tags"), ("words", "tags"), ("Tokens", "labels")])
@pytest.mark.parametrize("tags", [["O", "B-PER", "I-PER", "B-LOC"], [0, 1, 2, 3]])
def test_words_are_split_and_tags_stay_with_their_first_token(
    tmp_path: Path, tokenizer: Any, columns: tuple[str, str], tags: list[Any]
) -> None:
    path = lines(tmp_path / "data.jsonl", {columns[0]: ADA, columns[1]: tags})
    found = read(path, tokenizer, Task.TOKEN_CLASSIFICATION, labels=TAGS)
    pieces = tokenizer.convert_ids_to_tokens(found.rows[0]["input_ids"])
    assert pieces == ["[CLS]", "the", "x", "##y", "##l", "##o", "film", "best", "[SEP]"]
    assert found.truth == (TokenTruth((1, 2, 6, 7), TAGS, TAGS),)
    assert found.titles == ("the xylo film best",)
    answer = {"logits": np.eye(4)[[0, 0, 1, 0, 0, 0, 2, 3, 0]]}
    assert SPAN_F1.statistics(answer, found.truth[0]).tolist() == [2, 0, 0]


def test_words_that_are_cut_off_have_no_token(tmp_path: Path, tokenizer: Any) -> None:
    path = lines(tmp_path / "data.jsonl", {"tokens": ADA, "tags": ["O"] * 4})
    found = read(path, tokenizer, Task.TOKEN_CLASSIFICATION, labels=TAGS, max_length=5)
    assert found.truth
    assert found.truth[0].first_tokens == (1, 2, -1, -1)


def test_a_tag_may_lack_the_prefix_that_the_model_knows(tmp_path: Path, tokenizer: Any) -> None:
    """Some models have no B-PER, as in CoNLL's first scheme."""
    path = lines(tmp_path / "data.jsonl", {"tokens": ADA, "tags": ["B-PER"] * 4})
    found = read(path, tokenizer, Task.TOKEN_CLASSIFICATION, labels=("O", "I-PER"))
    assert found.truth
    assert found.truth[0].tags == ("B-PER",) * 4


def test_words_need_no_tags(tmp_path: Path, tokenizer: Any) -> None:
    found = read(lines(tmp_path / "data.jsonl", {"tokens": ADA}), tokenizer, Task.TOKEN_CLASSIFICATION, labels=TAGS)
    assert found.truth is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": "the film", "tags": ["O", "O"]}, "row 1: column 'tokens' is not a list of words"),
        ({"tokens": [], "tags": []}, "row 1: column 'tokens' is not a list of words"),
        ({"tokens": ["a", 1], "tags": ["O", "O"]}, "row 1: column 'tokens' is not a list of words"),
        ({"tokens": ["a", "film"], "tags": ["O"]}, "row 1: there is not one tag for each of 2 words"),
        ({"tokens": ["a", "film"], "tags": "OO"}, "row 1: there is not one tag for each of 2 words"),
        ({"tokens": ["a", "film"], "tags": ["O", "B-DOG"]}, "row 1: unknown tag 'B-DOG'"),
        ({"tokens": ["a", "film"], "tags": [0, 4]}, "row 1: unknown label '4'"),
    ],
)
def test_words_that_do_not_fit_their_tags_are_named(
    tmp_path: Path, tokenizer: Any, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(lines(tmp_path / "data.jsonl", row), tokenizer, Task.TOKEN_CLASSIFICATION, labels=TAGS)


# Questions

QUESTION, CONTEXT = "what is it?", "It is a  warm, funny film about hours."


@pytest.mark.parametrize(
    ("column", "written", "answers"),
    [
        ("answers", {"text": ["funny film", "film"], "answer_start": [15, 21]}, ("funny film", "film")),
        ("answers", ["funny film"], ("funny film",)),
        ("answer", "funny film", ("funny film",)),
        ("answers", '{"text": ["funny film"]}', ("funny film",)),
        ("answer", "[not JSON", ("[not JSON",)),
        ("answers", {"text": [], "answer_start": []}, ()),
        ("answers", [], ()),
        ("answers", [""], ()),
    ],
)
def test_questions_know_where_their_context_lies(
    tmp_path: Path, tokenizer: Any, column: str, written: Any, answers: tuple[str, ...]
) -> None:
    path = lines(tmp_path / "data.jsonl", {"question": QUESTION, "context": CONTEXT, column: written})
    found = read(path, tokenizer, Task.QUESTION_ANSWERING)
    assert found.titles == (QUESTION,)
    assert found.truth
    truth = found.truth[0]
    assert isinstance(truth, AnswerTruth)
    assert (truth.context, truth.answers) == (CONTEXT, answers)
    ids = found.rows[0]["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert len(truth.offsets) == len(ids)
    parted = [offset is not None for offset in truth.offsets]
    assert parted == [False] * (pieces.index("[SEP]") + 1) + [True] * (sum(parted)) + [False]
    for piece, offset in zip(pieces, truth.offsets, strict=True):
        if offset:
            assert CONTEXT[offset[0] : offset[1]].lower() == piece.removeprefix("##")


def test_a_question_that_is_answered_right_scores_one(tmp_path: Path, tokenizer: Any) -> None:
    path = lines(tmp_path / "data.jsonl", {"question": QUESTION, "context": CONTEXT, "answer": "funny film"})
    found = read(path, tokenizer, Task.QUESTION_ANSWERING)
    assert found.truth
    pieces = tokenizer.convert_ids_to_tokens(found.rows[0]["input_ids"])
    start, end = np.zeros(len(pieces)), np.zeros(len(pieces))
    start[pieces.index("funny")] = end[pieces.index("film")] = 5
    assert ANSWER_F1.statistics({"start_logits": start, "end_logits": end}, found.truth[0]).tolist() == [1, 1]


def test_only_the_context_is_cut(tmp_path: Path, tokenizer: Any) -> None:
    path = lines(tmp_path / "data.jsonl", {"question": QUESTION, "context": CONTEXT})
    found = read(path, tokenizer, Task.QUESTION_ANSWERING, max_length=12)
    assert found.truth is None
    expected = tokenizer(QUESTION, CONTEXT, truncation="only_second", max_length=12)
    assert found.rows[0]["input_ids"].tolist() == expected["input_ids"]


def test_a_question_that_leaves_no_room_is_named(tmp_path: Path, tokenizer: Any) -> None:
    good = {"question": "it?", "context": CONTEXT}
    path = lines(tmp_path / "data.jsonl", good, {"question": QUESTION * 9, "context": "film"})
    with pytest.raises(UserError, match=r"data\.jsonl, row 2: the tokenizer cannot take it"):
        read(path, tokenizer, Task.QUESTION_ANSWERING, max_length=12)


@pytest.mark.parametrize("answers", [3, {"texts": ["a"]}, [1], [{"text": "a"}]])
def test_answers_that_are_no_texts_are_named(tmp_path: Path, tokenizer: Any, answers: Any) -> None:
    path = lines(tmp_path / "data.jsonl", {"question": QUESTION, "context": CONTEXT, "answers": answers})
    with pytest.raises(UserError, match="row 1: the answers are not texts"):
        read(path, tokenizer, Task.QUESTION_ANSWERING)


# Masks and features


def test_a_share_of_the_ordinary_tokens_is_masked_and_is_the_truth(tmp_path: Path, tokenizer: Any) -> None:
    texts = [" ".join(["film"] * 40), "best", "the best film of the year, a film about a film"]
    path = table(tmp_path / "data.csv", ("text",), *((text,) for text in texts))
    found = read(path, tokenizer, Task.FILL_MASK)
    assert found.titles == tuple(texts)
    assert found.truth
    assert [len(truth) for truth in found.truth] == [6, 1, 2]
    for row, truth, text in zip(found.rows, found.truth, texts, strict=True):
        ids = row["input_ids"].copy()
        assert (ids == tokenizer.mask_token_id).sum() == len(truth)
        for position, token in truth:
            assert ids[position] == tokenizer.mask_token_id
            ids[position] = token
        assert ids.tolist() == tokenizer(text)["input_ids"]
        answer = {"logits": np.eye(tokenizer.vocab_size)[ids]}
        assert MASKED_ACCURACY.statistics(answer, truth).tolist() == [len(truth)] * 2


def test_masks_stay_where_they_are_and_differ_between_rows(tmp_path: Path, tokenizer: Any) -> None:
    path = table(tmp_path / "data.csv", ("text",), *((" ".join(["film"] * 40),) for _ in range(2)))
    first, again = read(path, tokenizer, Task.FILL_MASK), read(path, tokenizer, Task.FILL_MASK, limit=1)
    assert first.truth
    assert again.truth
    assert first.truth[0] == again.truth[0] != first.truth[1]
    assert first.select([0]).sha256 == again.sha256


def test_special_and_unknown_tokens_are_not_masked(tmp_path: Path, tokenizer: Any) -> None:
    path = table(tmp_path / "data.csv", ("text",), *(("☃ ☃ ☃ ☃ film [MASK]",),) * 10)
    found = read(path, tokenizer, Task.FILL_MASK)
    assert found.truth
    film = tokenizer.convert_tokens_to_ids("film")
    assert set(found.truth) == {((5, film),)}


def test_a_text_without_a_token_to_mask_is_named(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="row 3: there is no token to mask"):
        read(table(tmp_path / "data.csv", ("text",), ("a",), ("☃",)), tokenizer, Task.FILL_MASK)


def test_a_tokenizer_without_a_mask_is_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    other = load_tokenizer(tiny_checkpoint)
    other.mask_token = None
    with pytest.raises(UserError, match="no mask token"):
        read(table(tmp_path / "data.csv", ("text",), ("a",)), other, Task.FILL_MASK)


def test_features_have_texts_and_no_truth(tmp_path: Path, tokenizer: Any) -> None:
    path = table(tmp_path / "data.csv", ("sentence1", "sentence2", "label"), ("a film", "b", 1))
    found = read(path, tokenizer, Task.FEATURE_EXTRACTION)
    assert (found.truth, found.titles) == (None, ("a film",))
    assert padded(found) == dict(tokenizer(["a film"]))


# Arrays


def test_arrays_are_rows_of_inputs(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.float64).reshape(3, 2, 4)
    np.savez(
        tmp_path / "data.npz",
        pixel_values=pixels,
        input_ids=np.array([[1], [2], [3]], np.uint8),
        mask=np.array([True, False, True]),
        labels=np.array([2, 0, 1], np.int32),
    )
    found = read_arrays(tmp_path / "data.npz", limit=None)
    assert found.titles == ("row 1", "row 2", "row 3")
    assert found.truth == (2, 0, 1)
    assert [type(label) for label in found.truth] == [int] * 3
    batch = found.batch([2, 0])
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "pixel_values": "float32",
        "input_ids": "int64",
        "mask": "int64",
    }
    assert np.array_equal(batch["pixel_values"], pixels[[2, 0]])
    assert batch["input_ids"].tolist() == [[3], [1]]
    short = read_arrays(tmp_path / "data.npz", limit=2)
    assert (len(short), short.truth) == (2, (2, 0))


def test_arrays_need_no_labels_and_labels_may_be_maps(tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", x=np.zeros((2, 3)))
    assert read_arrays(tmp_path / "bare.npz", limit=None).truth is None
    np.savez(tmp_path / "maps.npz", x=np.zeros((2, 3)), labels=np.array([[[0, 1]], [[1, 255]]], np.uint8))
    truth = read_arrays(tmp_path / "maps.npz", limit=None).truth
    assert truth
    assert [item.tolist() for item in truth] == [[[0, 1]], [[1, 255]]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([{}, {}], dtype=object)}, "not a .npz file of plain arrays"),
        ({}, "holds no inputs"),
        ({"labels": np.array([1])}, "holds no inputs"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}, r"'x' \(2, 3\), 'y' \(3, 3\)"),
        ({"x": np.zeros((2, 3)), "labels": np.zeros(3, int)}, r"'labels' \(3,\)"),
        ({"x": np.array(1.0)}, r"'x' \(\)"),
        ({"x": np.zeros((0, 3))}, "holds no examples"),
        ({"x": np.array([[0.0, 1.0], [np.nan, 1.0]])}, "row 2: 'x' holds a NaN"),
        ({"x": np.array([0.0, 1.0, 1e300])}, "row 3: 'x' holds a NaN or an infinity"),
        ({"x": np.array(["a", "b"])}, "'x' holds <U1, not numbers"),
        ({"x": np.array([1j])}, "'x' holds complex128, not numbers"),
        ({"x": np.zeros(1), "labels": np.array([0.5])}, "'labels' holds float64, not integers"),
    ],
)
def test_arrays_that_are_no_inputs_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message) as caught:
        read_arrays(path, limit=None)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"text,label\n", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_files_that_are_no_arrays_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a \.npz file"):
        read_arrays(path, limit=None)


def test_a_single_array_or_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"not a \.npz file"):
        read_arrays(path, limit=None)
    np.savez_compressed(path, x=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a \.npz file"):
        read_arrays(path, limit=None)
    with pytest.raises(UserError, match="does not exist"):
        read_arrays(tmp_path / "gone.npz", limit=None)
