"""A user's data file as the inputs of a model, with what its task's metric holds right."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predict.rows import FIRST_COLUMNS, LABEL_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS, read_rows
from artifact.task import Task
from errors import UserError
from models.example_set import ExampleSet, evenly
from models.metrics import MULTI_LABEL, REGRESSION, SINGLE_LABEL, AnswerTruth, TokenTruth, problem_of, tag_type

MASKED_SHARE = 0.15
"""Of the ordinary tokens, as BERT was trained (Devlin et al., NAACL 2019)."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that the user named; the others are guessed. A question's context is its pair, its answers the label."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """What one row holds; `place` is how a message names it, and `label` is `None` where nothing is labelled."""

    place: str
    number: int
    text: Any
    pair: Any
    label: Any

    @property
    def title(self) -> str:
        text = self.text if isinstance(self.text, str) else " ".join(self.text)
        return f"{text} | {self.pair}" if isinstance(self.pair, str) else text

    @property
    def item(self) -> Any:
        return (self.text, self.pair) if isinstance(self.pair, str) else self.text


@dataclass(frozen=True, slots=True)
class _Model:
    """What of a model decides how rows are read."""

    tokenizer: Any
    max_length: int
    labels: tuple[str, ...]
    problem: str | None

    def encode(self, row: _Row, *texts: Any, truncation: str = "longest_first", **options: bool) -> Any:
        try:
            encoding = self.tokenizer(*texts, truncation=truncation, max_length=self.max_length, **options)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise UserError(f"{row.place}: the tokenizer cannot take it ({error})", "fix or remove that row") from error
        if not encoding["input_ids"]:
            raise UserError(f"{row.place}: the tokenizer makes no tokens of it", "remove that row")
        return encoding


Read = tuple[list[Any], list[Any] | None]
"""Each row's encoding, and its truth where rows are labelled."""


def read_task_examples(
    path: Path,
    task: Task,
    tokenizer: Any,
    *,
    max_length: int,
    labels: tuple[str, ...],
    problem: str | None,
    columns: Columns,
    limit: int | None,
) -> ExampleSet:
    """Read `limit` rows of a `.csv`, `.tsv` or `.jsonl` file for a task on text, spread over it, by a fast tokenizer.

    Each row has the int64 inputs that the model takes, of shape (tokens,); truth is `None` if no row is labelled.
    Raises `UserError` naming the file and the row or column that is missing, empty or not what the task needs.
    """
    layout = _LAYOUTS.get(task)
    if layout is None:
        raise UserError(f"{path} holds texts, and a model for {task} takes none", "give its inputs as a .npz file")
    rows = _read(path, layout, columns, limit)
    encodings, truth = layout.reader(rows, _Model(tokenizer, max_length, labels, problem))
    names = [name for name in tokenizer.model_input_names if name in encodings[0]]
    padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    return ExampleSet(
        rows=tuple({name: np.array(encoding[name], dtype=np.int64) for name in names} for encoding in encodings),
        titles=tuple(row.text if layout.needs_pair else row.title for row in rows),
        truth=None if truth is None else tuple(truth),
        padding={name: padding[name] or 0 for name in names if name in padding},
        pad_left=tokenizer.padding_side == "left",
        items=tuple(row.item for row in rows),
    )


def read_arrays(path: Path, *, limit: int | None) -> ExampleSet:
    """Read `limit` examples of a `.npz` file, spread over it: arrays named as the model's inputs, of one length.

    Integers become int64 and fractions float32; an array `labels` of integers is the truth. Raises `UserError` naming
    the file and the array that is pickled, of another length, not numbers, or holds a NaN or an infinity.
    """
    arrays = _load(path)
    truth = arrays.pop("labels", None)
    if not arrays:
        raise UserError(f"{path} holds no inputs", "save one array for each input: numpy.savez(file, input_ids=…)")
    if truth is not None and truth.dtype.kind not in "iu":
        raise UserError(f"{path}: 'labels' holds {truth.dtype}, not integers", "save the position of each label")
    named = arrays if truth is None else {**arrays, "labels": truth}
    lengths = {name: len(array) if array.ndim else None for name, array in named.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        shapes = ", ".join(f"'{name}' {array.shape}" for name, array in named.items())
        raise UserError(
            f"{path}: arrays differ in their number of examples: {shapes}", "the first axis is the examples"
        )
    inputs = {name: _numbers(path, name, array) for name, array in arrays.items()}
    picks = evenly(len(next(iter(inputs.values()))), limit)
    if not picks:
        raise UserError(f"{path} holds no examples", "its arrays need at least one row")
    return ExampleSet(
        rows=tuple({name: array[row] for name, array in inputs.items()} for row in picks),
        titles=tuple(f"row {row + 1}" for row in picks),
        truth=None if truth is None else tuple(truth[picks].tolist() if truth.ndim == 1 else truth[picks]),
        padding={},
    )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist", "check the path given with --data")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # numpy passes on what the zip, zlib and header readers raise
        raise UserError(
            f"{path} is not a .npz file of plain arrays",
            "write numbers with numpy.savez; pickled objects can run code and are not loaded",
        ) from error


def _numbers(path: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    kind = _KINDS.get(array.dtype.kind)
    if kind is None:
        raise UserError(f"{path}: '{name}' holds {array.dtype}, not numbers", "save integers or fractions")
    with np.errstate(over="ignore"):
        numbers: NDArray[Any] = array.astype(kind)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0, 0]) + 1
        raise UserError(f"{path}, row {row}: '{name}' holds a NaN or an infinity", "fix or remove that row")
    return numbers


_KINDS: Mapping[str, type] = {"b": np.int64, "i": np.int64, "u": np.int64, "f": np.float32}


def _read(path: Path, layout: "_Layout", columns: Columns, limit: int | None) -> list[_Row]:
    every = list(read_rows(path))
    found = [every[row] for row in evenly(len(every), limit)]
    if not found:
        raise UserError(f"{path} holds no examples", "it needs at least one row, and a CSV a header line")
    present = list(dict.fromkeys(name for _, row in found for name in row))
    text = _column(path, present, columns.text, layout.text, "--text-column", needed=True)
    pair = _column(path, present, columns.pair, layout.pair, "--pair-column", needed=layout.needs_pair)
    label = _column(path, present, columns.label, layout.label, "--label-column", needed=False)
    rows = []
    for number, row in found:
        place = f"{path}, row {number}"
        layout.check(place, text, _value(row, text))
        if pair is not None:
            _check_text(place, pair, _value(row, pair))
        rows.append(_Row(place, number, _value(row, text), _value(row, pair), _value(row, label)))
    bare = [row for row in rows if row.label is None]
    if bare and len(bare) < len(rows):
        raise UserError(
            f"{bare[0].place}: column '{label}' has no label", "fill it ([] says that there is none), or remove the row"
        )
    return rows


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


def _check_text(place: str, column: str | None, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: column '{column}' is empty or not text", "fill or remove that row")


def _check_words(place: str, column: str | None, value: Any) -> None:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise UserError(
            f"{place}: column '{column}' is not a list of words",
            'give a .jsonl file of rows like {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]}',
        )


def _classified(rows: Sequence[_Row], model: _Model) -> Read:
    encodings = [model.encode(row, row.text, row.pair) for row in rows]
    decide = _DECISIONS[problem_of(model.problem, len(model.labels))]
    return encodings, decide(rows, model.labels) if _labelled(rows) else None


def _labelled(rows: Sequence[_Row]) -> bool:
    return rows[0].label is not None


def _single(rows: Sequence[_Row], names: Sequence[str]) -> list[Any]:
    return [index for (index,) in _indices(rows, [[row.label] for row in rows], names)]


def _several(rows: Sequence[_Row], names: Sequence[str]) -> list[Any]:
    """Labels as a JSON list, or as names with bars between them."""
    values = [_from_json(row.label) for row in rows]
    lists = [value if isinstance(value, list) else str(value).split("|") for value in values]
    return [frozenset(indices) for indices in _indices(rows, lists, names)]


def _quantity(rows: Sequence[_Row], names: Sequence[str]) -> list[Any]:
    return [_number(row) for row in rows]


def _number(row: _Row) -> float:
    try:
        number = float(str(row.label))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{row.place}: the label '{row.label}' is not a number", "fix or remove that row")
    return number


_DECISIONS: Mapping[str, Callable[[Sequence[_Row], Sequence[str]], list[Any]]] = {
    SINGLE_LABEL: _single,
    MULTI_LABEL: _several,
    REGRESSION: _quantity,
}


def _indices(rows: Sequence[_Row], lists: Sequence[Iterable[Any]], names: Sequence[str]) -> list[list[int]]:
    """Positions in `names` of each row's labels; where none of all is a name, numbers are the positions themselves."""
    written = [[str(label).strip() for label in labels] for labels in lists]
    positions = {name: index for index, name in enumerate(names)}
    if not any(label in positions for labels in written for label in labels):
        positions = {str(index): index for index in range(len(names))}
    for row, labels in zip(rows, written, strict=True):
        unknown = [label for label in labels if label not in positions]
        if unknown:
            raise UserError(f"{row.place}: unknown label '{unknown[0]}'", f"the model knows: {', '.join(names)}")
    return [[positions[label] for label in labels] for labels in written]


def _from_json(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _tagged(rows: Sequence[_Row], model: _Model) -> Read:
    encodings = [model.encode(row, row.text, is_split_into_words=True) for row in rows]
    if not _labelled(rows):
        return encodings, None
    for row in rows:
        if not isinstance(row.label, list) or len(row.label) != len(row.text):
            raise UserError(f"{row.place}: there is not one tag for each of {len(row.text)} words", "fix that row")
    types = {tag_type(name) for name in model.labels}
    tags = [[str(tag) for tag in row.label] for row in rows]
    if not any(tag_type(tag) in types for line in tags for tag in line):
        tags = [
            [model.labels[index] for index in line]
            for line in _indices(rows, [row.label for row in rows], model.labels)
        ]
    truth = []
    for row, line, encoding in zip(rows, tags, encodings, strict=True):
        unknown = [tag for tag in line if tag_type(tag) not in types]
        if unknown:
            raise UserError(f"{row.place}: unknown tag '{unknown[0]}'", f"the model knows: {', '.join(model.labels)}")
        words = encoding.word_ids(0)
        first = tuple(words.index(word) if word in words else -1 for word in range(len(line)))
        truth.append(TokenTruth(first, tuple(line), model.labels))
    return encodings, truth


def _answered(rows: Sequence[_Row], model: _Model) -> Read:
    encodings = [
        model.encode(row, row.text, row.pair, truncation="only_second", return_offsets_mapping=True) for row in rows
    ]
    if not _labelled(rows):
        return encodings, None
    truth = []
    for row, encoding in zip(rows, encodings, strict=True):
        pairs = zip(encoding["offset_mapping"], encoding.sequence_ids(0), strict=True)
        offsets = tuple((offset[0], offset[1]) if part == 1 else None for offset, part in pairs)
        truth.append(AnswerTruth(row.pair, offsets, _answers(row)))
    return encodings, truth


def _answers(row: _Row) -> tuple[str, ...]:
    """Answers as SQuAD has them, {"text": […]}, as a list, or as one text."""
    value = _from_json(row.label)
    value = value.get("text") if isinstance(value, dict) else value
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{row.place}: the answers are not texts", 'write {"text": ["one", "another"]} or one text')
    return tuple(text for text in texts if text.strip())


def _with_masks(rows: Sequence[_Row], model: _Model) -> Read:
    """Texts where a few tokens are masked, the same ones each time; the truth is what stood there."""
    mask = model.tokenizer.mask_token_id
    if mask is None:
        raise UserError("the tokenizer has no mask token", "give the checkpoint the tokenizer it was trained with")
    special = set(model.tokenizer.all_special_ids)
    encodings, truth = [], []
    for row in rows:
        encoding = model.encode(row, row.text)
        ids = encoding["input_ids"]
        ordinary = [position for position, token in enumerate(ids) if token not in special]
        if not ordinary:
            raise UserError(f"{row.place}: there is no token to mask", "remove that row")
        count = max(1, round(MASKED_SHARE * len(ordinary)))
        chosen = sorted(np.random.default_rng(row.number).choice(ordinary, count, replace=False).tolist())
        truth.append(tuple((position, ids[position]) for position in chosen))
        encodings.append({**encoding, "input_ids": [mask if at in chosen else ids[at] for at in range(len(ids))]})
    return encodings, truth


def _plain(rows: Sequence[_Row], model: _Model) -> Read:
    return [model.encode(row, row.text) for row in rows], None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The usual columns of a task's files, and how its rows are read; no usual names: no such column."""

    reader: Callable[[Sequence[_Row], _Model], Read]
    text: tuple[str, ...] = (*TEXT_COLUMNS, *FIRST_COLUMNS)
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    needs_pair: bool = False
    check: Callable[[str, str | None, Any], None] = _check_text


_LAYOUTS: Mapping[Task, _Layout] = {
    Task.TEXT_CLASSIFICATION: _Layout(_classified, pair=PAIR_COLUMNS, label=LABEL_COLUMNS),
    Task.TOKEN_CLASSIFICATION: _Layout(
        _tagged, text=("tokens", "words"), label=("tags", "ner_tags", "labels"), check=_check_words
    ),
    Task.QUESTION_ANSWERING: _Layout(
        _answered, text=("question",), pair=("context",), label=("answers", "answer"), needs_pair=True
    ),
    Task.FILL_MASK: _Layout(_with_masks),
    Task.FEATURE_EXTRACTION: _Layout(_plain),
}
