"""Which task a file is for, what of it is read, and that what is written is read again."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from artifact.task import Task
from errors import UserError
from models.problem import label_names, problem_of_rows
from models.reading import read_lesson
from models.rows import Columns, Row, TaskRows, guess_task, read_task_rows, write_rows
from models.training import Lesson, Problem
from tests.conftest import spoken, wav

TAGGED = {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]}
ASKED = {"question": "where?", "context": "in Rome", "answers": {"text": ["Rome"], "answer_start": [3]}}


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"text": "a", "label": 1}, Task.TEXT_CLASSIFICATION),
        ({"premise": "a", "hypothesis": "b", "label": 1}, Task.TEXT_CLASSIFICATION),
        (TAGGED, Task.TOKEN_CLASSIFICATION),
        ({"words": ["a"], "ner_tags": [0]}, Task.TOKEN_CLASSIFICATION),
        (ASKED, Task.QUESTION_ANSWERING),
        ({"image": "a.png", "label": 1}, Task.IMAGE_CLASSIFICATION),
        ({"text": "a", "path": "b", "label": 1}, Task.TEXT_CLASSIFICATION),  # a text that tells where it is from
        ({"question": "a", "label": 1}, Task.TEXT_CLASSIFICATION),
        ({"body": "a"}, Task.TEXT_CLASSIFICATION),
        ({"text": "a", "summary": "b"}, Task.TEXT2TEXT_GENERATION),
        ({"text": "a", "summary": "b", "label": 1}, Task.TEXT_CLASSIFICATION),
        ({"text": "a", "target": "b"}, Task.TEXT_CLASSIFICATION),  # which may be a label
        ({"audio": "a.wav", "text": "b"}, Task.SPEECH2TEXT_GENERATION),
        ({"audio": "a.wav", "sentence": "b", "label": 1}, Task.TEXT_CLASSIFICATION),
    ],
)
def test_the_task_follows_from_the_columns(tmp_path: Path, row: dict[str, Any], task: Task) -> None:
    assert guess_task(lines(tmp_path / "data.jsonl", row)) is task


@pytest.mark.parametrize(
    ("row", "label", "task"),
    [
        ({"Text": "a", "Summary": "b", "Score": 5}, "Score", Task.TEXT_CLASSIFICATION),
        ({"Text": "a", "Summary": "b", "Score": 5}, "Summary", Task.TEXT2TEXT_GENERATION),
        ({"audio": "a.wav", "text": "b", "emotion": "c"}, "emotion", Task.TEXT_CLASSIFICATION),
        ({"audio": "a.wav", "text": "b", "emotion": "c"}, "text", Task.SPEECH2TEXT_GENERATION),
    ],
)
def test_a_label_that_is_named_is_heeded(tmp_path: Path, row: dict[str, Any], label: str, task: Task) -> None:
    assert guess_task(lines(tmp_path / "data.jsonl", row), Columns(label=label)) is task


@pytest.mark.parametrize(
    ("labels", "problem", "names"),
    [
        (["b", "a"], Problem.SINGLE_LABEL, ("a", "b")),
        ([10, 2], Problem.SINGLE_LABEL, ("2", "10")),
        ([True, False], Problem.SINGLE_LABEL, ("False", "True")),
        ([["b", "a"], []], Problem.MULTI_LABEL, ("a", "b")),
        (['["b"]', "[]"], Problem.MULTI_LABEL, ("b",)),
        (["a|b", "b"], Problem.MULTI_LABEL, ("a", "b")),
        ([1.5, 2], Problem.REGRESSION, ("score",)),
        (["1.5", "-2"], Problem.REGRESSION, ("score",)),
        (["v1.5", "2"], Problem.SINGLE_LABEL, ("2", "v1.5")),
    ],
)
def test_the_problem_follows_from_the_labels(
    tmp_path: Path, labels: list[Any], problem: Problem, names: tuple[str, ...]
) -> None:
    path = lines(tmp_path / "data.jsonl", *({"text": f"t{at}", "label": label} for at, label in enumerate(labels)))
    rows = read_task_rows(path, Task.TEXT_CLASSIFICATION, labelled=True)
    assert problem_of_rows(rows, None) is problem
    assert sorted(label_names(rows.rows, problem)) == sorted(names)
    if labels == [10, 2]:
        assert label_names(rows.rows, problem) == names  # as text, 10 would come first


def test_whole_numbers_are_classes_unless_it_is_said(tmp_path: Path) -> None:
    rows = read_task_rows(lines(tmp_path / "data.jsonl", {"text": "a", "label": 3}), Task.TEXT_CLASSIFICATION)
    assert problem_of_rows(rows, None) is Problem.SINGLE_LABEL
    assert problem_of_rows(rows, Problem.REGRESSION) is Problem.REGRESSION


def _rows(task: Task, *items: tuple[Any, str | None, Any]) -> TaskRows:
    found = (Row(f"row {at}", at, text, pair, label) for at, (text, pair, label) in enumerate(items))
    return TaskRows(task, Path("data"), Columns(), tuple(found))


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (_rows(Task.TEXT_CLASSIFICATION, ('say "hi", please', None, "a"), ("two\nlines", None, "b")), "data.csv"),
        (_rows(Task.TEXT_CLASSIFICATION, ("a", "b, c", "x"), ("d", "e", "y")), "data.csv"),
        (_rows(Task.TOKEN_CLASSIFICATION, (["in", "Rom|e"], None, ["O", "B-LOC"])), "data.jsonl"),
        (_rows(Task.QUESTION_ANSWERING, ("wo?", "in Köln", {"text": ["Köln"], "answer_start": [3]})), "data.jsonl"),
        (_rows(Task.TEXT_GENERATION, ("one", None, None), ("two", None, None)), "data.csv"),
    ],
)
def test_what_is_written_is_read_again(tmp_path: Path, rows: TaskRows, name: str) -> None:
    path = write_rows(tmp_path, "data", rows)
    again = read_task_rows(path, rows.task)
    assert path.name == name
    assert (again.texts, again.labels) == (rows.texts, rows.labels)
    assert again.sha256 == rows.sha256


def test_several_labels_are_written_as_a_list_in_a_cell(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "data", _rows(Task.TEXT_CLASSIFICATION, ("a", None, ["x", "y|z"]), ("b", None, [])))
    with path.open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ['["x", "y|z"]', "[]"]


def test_the_other_format_does_not_stay_beside(tmp_path: Path) -> None:
    write_rows(tmp_path, "data", _rows(Task.TOKEN_CLASSIFICATION, (["a"], None, ["O"])))
    write_rows(tmp_path, "data", _rows(Task.TEXT_CLASSIFICATION, ("a", None, "x")))
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_a_picture_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    hashes = [_rows(Task.IMAGE_CLASSIFICATION, (tmp_path / f"{name}.png", None, "x")).sha256 for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_parquet_is_read(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "data.parquet")
    rows = read_task_rows(tmp_path / "data.parquet", Task.TEXT_CLASSIFICATION, labelled=True)
    assert (rows.texts, rows.labels) == (("a", "b"), (0, 1))


def _saved(folder: Path) -> Path:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    parts = {"train": {"text": ["a", "b", "c"], "label": [1, 0, -1]}, "test": {"text": ["d"], "label": [1]}}
    made = {name: datasets.Dataset.from_dict(part, features=features) for name, part in parts.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder


def test_a_folder_of_datasets_is_read_with_the_names_of_its_classes(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "saved")
    found = read_task_rows(folder / "test", Task.TEXT_CLASSIFICATION, labelled=True)
    assert (found.texts, found.labels) == (("d",), ("pos",))
    with pytest.raises(UserError, match="row 3: column 'label' has no label"):
        read_task_rows(folder, Task.TEXT_CLASSIFICATION, labelled=True)
    two = read_task_rows(folder, Task.TEXT_CLASSIFICATION, where={"label": "pos"}, labelled=True)
    assert (two.texts, two.labels) == (("a",), ("pos",))


def test_tags_of_a_data_set_are_names(tmp_path: Path) -> None:
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-LOC"]))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": tags})
    made = datasets.Dataset.from_dict({"tokens": [["in", "Rome"]], "ner_tags": [[0, 1]]}, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    assert guess_task(tmp_path / "saved") is Task.TOKEN_CLASSIFICATION
    assert read_task_rows(tmp_path / "saved", Task.TOKEN_CLASSIFICATION).labels == (["O", "B-LOC"],)


def test_one_of_several_configurations_is_named(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name} text,pos\n")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in ("first", "second"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    found = read_task_rows(Path(f"hub:{tmp_path}:second:train"), Task.TEXT_CLASSIFICATION, labelled=True)
    assert found.texts == ("second text",)
    with pytest.raises(UserError, match="first"):  # the library names those that there are
        read_task_rows(Path(f"hub:{tmp_path}"), Task.TEXT_CLASSIFICATION)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "c", "summary": "d"}, {"text": "text", "label": "summary"}),
        ({"document": "c", "target": "d"}, {"text": "document", "label": "target"}),
    ],
)
def test_an_evaluation_file_may_have_usual_columns_of_its_own(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, str]
) -> None:
    data = lines(tmp_path / "data.jsonl", {"text": "a", "summary": "b"})
    lesson = Lesson(base_model="none", data=str(data), evaluation=str(lines(tmp_path / "other.jsonl", row)))
    evaluation = read_lesson(lesson)[1]
    assert evaluation is not None
    assert (evaluation.columns.named, evaluation.rows[0].text, evaluation.rows[0].label) == (columns, "c", "d")


def test_an_evaluation_file_without_such_columns_is_named(tmp_path: Path) -> None:
    data, other = (
        lines(tmp_path / name, row)
        for name, row in (("data.jsonl", {"text": "a", "summary": "b"}), ("other.jsonl", {"text": "a", "gist": "b"}))
    )
    with pytest.raises(UserError, match=r"other\.jsonl has no column named target"):
        read_lesson(Lesson(base_model="none", data=str(data), evaluation=str(other)))


def test_pictures_inside_a_data_set_are_refused(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat"])})
    made = datasets.Dataset.from_dict({"image": [Image.new("RGB", (4, 4))], "label": [0]}, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(UserError, match="row 1: column 'image' holds a dict, not the path") as raised:
        read_task_rows(tmp_path / "saved", Task.IMAGE_CLASSIFICATION)
    assert "save the pictures as files" in raised.value.hint


def test_recordings_inside_a_data_set_are_refused(tmp_path: Path) -> None:
    held = {"bytes": wav(spoken(0)), "path": "0.wav"}
    made = datasets.Dataset.from_dict({"audio": [held], "text": ["a film"]})
    made.cast_column("audio", datasets.Audio()).save_to_disk(str(tmp_path / "saved"))
    assert guess_task(tmp_path / "saved") is Task.SPEECH2TEXT_GENERATION
    with pytest.raises(UserError, match="row 1: column 'audio' holds a dict, not the path of a recording"):
        read_task_rows(tmp_path / "saved", Task.SPEECH2TEXT_GENERATION)


def test_only_lists_of_labels_may_be_said_to_be_empty(tmp_path: Path) -> None:
    for labels, said in (('["a"]', True), ("a", False)):
        path = tmp_path / "data.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), ("one", labels), ("two", "")])
        with pytest.raises(UserError, match="row 3: column 'label' has no label") as raised:
            read_task_rows(path, Task.TEXT_CLASSIFICATION, labelled=True)
        assert ("[]" in raised.value.hint) == said


@pytest.mark.parametrize("name", ["empty", "hub:someone/something"])
def test_what_is_no_data_set_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    path = tmp_path / name if name == "empty" else Path(name)
    with pytest.raises(UserError, match=f"{path} cannot be loaded") as raised:
        read_task_rows(path, Task.TEXT_CLASSIFICATION)
    assert "save_to_disk" in raised.value.hint
