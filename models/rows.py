"""Rows of a user's file for one task: which columns hold what, whichever format the file has."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifact.predict.reads import Reads
from artifact.predict.rows import (
    FIRST_COLUMNS,
    LABEL_COLUMNS,
    PAIR_COLUMNS,
    TEXT_COLUMNS,
    TRANSCRIPT_COLUMNS,
    USUAL,
    WRITTEN_COLUMNS,
    find_column,
    read_rows,
)
from artifact.records import replacing, sha256_bytes, sha256_file
from artifact.task import Task
from errors import UserError
from models.datasets import dataset_rows, is_dataset
from models.example_set import evenly


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that the user named; the others are guessed. A question's context is its pair, its answers the label."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Those that there are, by what they hold."""
        parts = {"text": self.text, "pair": self.pair, "label": self.label}
        return {part: name for part, name in parts.items() if name is not None}


@dataclass(frozen=True, slots=True)
class Row:
    """What one row holds; `place` is how a message names it, and `label` is `None` where nothing is labelled.

    `text` is a text, a list of words, or the `Path` of a picture or a recording.
    """

    place: str
    number: int
    text: Any
    pair: str | None
    label: Any

    @property
    def title(self) -> str:
        text = " ".join(self.text) if isinstance(self.text, list) else str(self.text)
        return text if self.pair is None else f"{text} | {self.pair}"

    @property
    def item(self) -> Any:
        return self.text if self.pair is None else (self.text, self.pair)


@dataclass(frozen=True, slots=True)
class TaskRows:
    """Rows for a task; `columns` are those that they were found in."""

    task: Task
    source: Path
    columns: Columns
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def texts(self) -> tuple[Any, ...]:
        return tuple(row.item for row in self.rows)

    @property
    def labels(self) -> tuple[Any, ...]:
        return tuple(row.label for row in self.rows)

    @property
    def is_labelled(self) -> bool:
        return self.rows[0].label is not None

    def select(self, places: Sequence[int]) -> "TaskRows":
        """The rows at these positions, in this order."""
        return replace(self, rows=tuple(self.rows[place] for place in places))

    def relabel(self, change: Callable[[Any], Any]) -> "TaskRows":
        """The same rows with each label changed."""
        return replace(self, rows=tuple(replace(row, label=change(row.label)) for row in self.rows))

    @property
    def sha256(self) -> str:
        """Hash of the items and labels, whatever the file format."""
        return sha256_bytes(json.dumps([self.texts, self.labels], default=sha256_file).encode())


def _text(path: Path, place: str, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: column '{column}' is empty or not text", "fill or remove that row")
    return value


@dataclass(frozen=True, slots=True)
class Layout:
    """The usual columns of a task's files (no usual names: no such column), and what its first column must hold."""

    text: tuple[str, ...] = (*TEXT_COLUMNS, *FIRST_COLUMNS)
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    needs_pair: bool = False
    read: Callable[[Path, str, str, Any], Any] = _text


def _words(path: Path, place: str, column: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise UserError(
            f"{place}: column '{column}' is not a list of words",
            'give a .jsonl file of rows like {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]}',
        )
    return value


def _file(kind: str) -> Callable[[Path, str, str, Any], Path]:
    """The reader of paths of files of one kind, which are relative to the data file's own folder."""

    def read(path: Path, place: str, column: str, value: Any) -> Path:
        if value is not None and not isinstance(value, str):
            raise UserError(
                f"{place}: column '{column}' holds a {type(value).__name__}, not the path of a {kind}",
                f"save the {kind}s as files, and their paths and labels as .csv, .jsonl or .parquet",
            )
        found = path.parent / _text(path, place, column, value)
        if not found.is_file():
            raise UserError(f"{place}: there is no {kind} {found}", "paths are relative to the folder of the data file")
        return found.resolve()

    return read


LAYOUTS: Mapping[Task, Layout] = {
    Task.TEXT_CLASSIFICATION: Layout(pair=PAIR_COLUMNS, label=LABEL_COLUMNS),
    Task.TOKEN_CLASSIFICATION: Layout(("tokens", "words"), label=("tags", "ner_tags", "labels"), read=_words),
    Task.QUESTION_ANSWERING: Layout(("question",), ("context",), ("answers", "answer"), needs_pair=True),
    Task.IMAGE_CLASSIFICATION: Layout(USUAL[Reads.IMAGE][0], label=LABEL_COLUMNS, read=_file("picture")),
    Task.FILL_MASK: Layout(),
    Task.FEATURE_EXTRACTION: Layout(),
    Task.TEXT_GENERATION: Layout(),
    Task.TEXT2TEXT_GENERATION: Layout(label=WRITTEN_COLUMNS),
    Task.SPEECH2TEXT_GENERATION: Layout(USUAL[Reads.SOUND][0], label=TRANSCRIPT_COLUMNS, read=_file("recording")),
}
"""How the files of each task are laid out."""


SOUND_COLUMNS = ("audio", "audio_path")
"""Of those that may hold the path of a recording, the ones that hold nothing else."""


def column_names(path: Path) -> tuple[str, ...]:
    """What the first row of a data file has. Raises `UserError` for a file that cannot be read."""
    return tuple(next(iter(_every(path, None)), (0, {}))[1])


def guess_task(path: Path, columns: Columns = Columns()) -> Task:
    """The task that a data file's columns are for: words with tags, questions with contexts, pictures, recordings or
    texts with what is to be written of them, or texts. A label that is named and no usual column of what is written is
    no text to write."""
    present = {name.lower() for name in column_names(path)}
    label = (columns.label or "").lower()
    if not present & set(LABEL_COLUMNS) and (not label or label in (*WRITTEN_COLUMNS, *TRANSCRIPT_COLUMNS)):
        if present & set(SOUND_COLUMNS) and present & set(TRANSCRIPT_COLUMNS):
            return Task.SPEECH2TEXT_GENERATION
        if present & set(TEXT_COLUMNS) and present & set(WRITTEN_COLUMNS):
            return Task.TEXT2TEXT_GENERATION
    for task in (Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING, Task.IMAGE_CLASSIFICATION):
        layout = LAYOUTS[task]
        needed = (layout.text, layout.pair, layout.label) if layout.needs_pair else (layout.text, layout.label)
        if all(present & set(names) for names in needed) and not present & set(TEXT_COLUMNS):
            return task
    return Task.TEXT_CLASSIFICATION


def read_task_rows(
    path: Path,
    task: Task,
    *,
    columns: Columns = Columns(),
    where: Mapping[str, str] | None = None,
    limit: int | None = None,
    labelled: bool = False,
    more_labels: tuple[str, ...] = (),
) -> TaskRows:
    """Read `limit` rows, spread over a `.csv`, `.tsv`, `.jsonl` or `.parquet` file or a folder that `datasets` saved.

    `where` keeps only rows with these values. Columns that are not named are guessed from the usual names. Raises
    `UserError` naming the file and the row or column that is missing, empty or not what the task needs; if they shall
    be `labelled`, also where a label is missing. A task whose data has no labels may be told of a column that has
    `more_labels`.
    """
    layout = LAYOUTS.get(task)
    if layout is None:
        raise UserError(f"{path} holds texts, and a model for {task} takes none", "give its inputs as a .npz file")
    layout = replace(layout, label=layout.label or more_labels)
    every = list(_every(path, where))
    found = [every[place] for place in evenly(len(every), limit)]
    if not found:
        kept = "".join(f" with {column}={value}" for column, value in (where or {}).items())
        raise UserError(
            f"{path} holds no examples{kept}", "it needs a header line and at least one row of text and label"
        )
    present = list(dict.fromkeys(name for _, row in found for name in row))
    labelled = labelled and bool(layout.label)
    text = _column(path, present, columns.text, layout.text, "--text-column", needed=True)
    pair = _column(path, present, columns.pair, layout.pair, "--pair-column", needed=layout.needs_pair)
    label = _column(path, present, columns.label, layout.label, "--label-column", needed=labelled)
    rows = []
    for number, row in found:
        place = f"{path}, row {number}"
        rows.append(
            Row(
                place,
                number,
                layout.read(path, place, str(text), _value(row, text)),
                None if pair is None else _text(path, place, pair, _value(row, pair)),
                _value(row, label),
            )
        )
    bare = [row for row in rows if row.label is None]
    if bare and (labelled or len(bare) < len(rows)):
        lists = any(isinstance(row.label, list) or str(row.label).startswith("[") for row in rows)
        none = " ([] says that there is none)" if lists else ""
        raise UserError(f"{bare[0].place}: column '{label}' has no label", f"fill it{none}, or remove the row")
    return TaskRows(task, path, Columns(text, pair, label), tuple(rows))


def write_rows(folder: Path, name: str, rows: TaskRows) -> Path:
    """Write rows with their task's usual columns: `.jsonl` where they hold lists of words or answers, and else `.csv`.

    Paths of pictures are absolute.
    """
    layout = LAYOUTS[rows.task]
    parts = ((layout.text, "text"), (layout.pair, "pair"), (layout.label, "label"))
    held = [(usual[0], part) for usual, part in parts if usual and getattr(rows.rows[0], part) is not None]
    columns = [column for column, _ in held]
    values = [[getattr(row, part) for _, part in held] for row in rows.rows]
    nested = rows.task in (Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING)
    path = folder / f"{name}.{'jsonl' if nested else 'csv'}"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if nested:
            file.writelines(
                json.dumps(dict(zip(columns, value, strict=True)), ensure_ascii=False) + "\n" for value in values
            )
        else:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(
                [json.dumps(cell) if isinstance(cell, list) else cell for cell in value] for value in values
            )
    for other in set(folder.glob(f"{name}.*")) - {path}:
        other.unlink()
    return path


def _every(path: Path, where: Mapping[str, str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    first = True
    for number, row in dataset_rows(path) if is_dataset(path) else read_rows(path):
        if first and where:
            for column in where:
                find_column(path, row, column, (), "--where")
        first = False
        if not where or all(str(row.get(column)) == value for column, value in where.items()):
            yield number, row


def _value(row: Mapping[str, Any], column: str | None) -> Any:
    value = None if column is None else row.get(column)
    return None if isinstance(value, str) and not value.strip() else value


def _column(
    path: Path, present: Sequence[str], asked: str | None, usual: Sequence[str], flag: str, *, needed: bool
) -> str | None:
    by_lower_case = {name.lower(): name for name in reversed(present)}
    known = (by_lower_case[name] for name in usual if name in by_lower_case)
    name = next(known, None) if asked is None else asked
    if name in present and (usual or asked is None):
        return name
    if asked is None and not needed:
        return None
    if not usual:
        raise UserError(f"{path}: this task has no use for the column '{asked}'", f"leave out {flag}")
    wanted = f"'{asked}'" if asked is not None else f"named {' or '.join(usual)}"
    raise UserError(f"{path} has no column {wanted}", f"its columns are: {', '.join(present)}; name one with {flag}")
