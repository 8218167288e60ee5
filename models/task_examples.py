"""Rows of a user's file as the inputs of a model, with what its task's metric holds right."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import FEATURES, IDS
from artifact.task import Task
from errors import UserError
from models.example_set import WRITTEN, ExampleSet, evenly
from models.metrics import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    AnswerTruth,
    TokenTruth,
    WrittenTruth,
    problem_of,
    tag_type,
)
from models.rows import Columns, Row, TaskRows, read_task_rows

MASKED_SHARE = 0.15
"""Of the ordinary tokens, as BERT was trained (Devlin et al., NAACL 2019)."""


@dataclass(frozen=True, slots=True)
class _Model:
    """What of a model decides how rows become inputs. `processor` is a fast tokenizer, or prepares pictures or
    recordings; an encoder-decoder writes behind `start_ids`."""

    processor: Any
    max_length: int
    labels: tuple[str, ...]
    problem: str | None
    start_ids: tuple[int, ...] = ()
    cut: set[int] = field(default_factory=set)
    """Numbers of the rows that are longer than the model takes."""

    def encode(self, row: Row, *texts: Any, truncation: str = "longest_first", **options: Any) -> Any:
        try:
            encoding = self.processor(*texts, truncation=truncation, max_length=self.max_length, **options)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise UserError(f"{row.place}: the tokenizer cannot take it ({error})", "fix or remove that row") from error
        if not encoding["input_ids"]:
            raise UserError(f"{row.place}: the tokenizer makes no tokens of it", "remove that row")
        if encoding.encodings[0].overflowing:
            self.cut.add(row.number)
        return encoding

    def written(self, row: Row, ids: Sequence[int]) -> tuple[int, ...]:
        """What is written, from where it begins to its end; what is cut off has none."""
        every = (*self.start_ids, *ids)
        if len(every) > self.max_length:
            self.cut.add(row.number)
        return every[: self.max_length]


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
    """Read `limit` rows of a file for a task on text, spread over it, by a fast tokenizer.

    Each row has the int64 inputs that the model takes, of shape (tokens,); truth is `None` if no row is labelled.
    Raises `UserError` naming the file and the row or column that is missing, empty or not what the task needs.
    """
    rows = read_task_rows(path, task, columns=columns, limit=limit)
    return prepare(rows, tokenizer, max_length=max_length, labels=labels, problem=problem)[0]


def prepare(
    rows: TaskRows,
    processor: Any,
    *,
    max_length: int,
    labels: tuple[str, ...],
    problem: str | None,
    start_ids: tuple[int, ...] = (),
) -> tuple[ExampleSet, float]:
    """The rows as the model's inputs, made by what prepares them for it, and the fraction that was cut.

    Texts become int64 of shape (tokens,), pictures float32 of shape (channels, height, width) and recordings of shape
    (bins, frames), loaded when they are looked at. `start_ids` are what an encoder-decoder begins to write with. Raises
    `UserError` naming the file and the row that is not what the task needs.
    """
    model = _Model(processor, max_length, labels, problem, start_ids)
    encodings, truth = _READERS[rows.task](rows, model)
    tokenizer = getattr(processor, "tokenizer", processor)
    pad_id = getattr(tokenizer, "pad_token_id", None)
    padding = {
        IDS: pad_id,
        WRITTEN: pad_id,
        "attention_mask": 0,
        "token_type_ids": getattr(tokenizer, "pad_token_type_id", None),
    }
    names = [name for name in (*getattr(tokenizer, "model_input_names", ()), WRITTEN) if name in encodings[0]]
    titles = (row.text if rows.task is Task.QUESTION_ANSWERING else row.title for row in rows.rows)
    examples = ExampleSet(
        rows=tuple(
            item if isinstance(item, FromFile) else {name: np.array(item[name], dtype=np.int64) for name in names}
            for item in encodings
        ),
        titles=tuple(titles),
        truth=None if truth is None else tuple(truth),
        padding={name: padding[name] or 0 for name in names if name in padding},
        pad_left=getattr(processor, "padding_side", "right") == "left",
        items=rows.texts,
    )
    return examples, len(model.cut) / len(encodings)


class FromFile(Mapping[str, NDArray[Any]]):
    """One row's inputs, of which one is made anew of a file whenever it is looked at: all may not fit into memory."""

    def __init__(self, name: str, make: Callable[[], NDArray[np.float32]], **held: NDArray[np.int64]) -> None:
        self._name, self._make, self._held = name, make, held

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._make() if name == self._name else self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter((self._name, *self._held))

    def __len__(self) -> int:
        return 1 + len(self._held)


def _picture(row: Row, processor: Any) -> NDArray[np.float32]:
    from PIL import Image, ImageOps

    try:
        with Image.open(row.text) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{row.place}: {row.text} is no picture ({error})", "fix or remove that row") from error
    found = processor(images=upright, return_tensors="np")["pixel_values"][0]
    return np.asarray(found, dtype=np.float32)


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


def _classified(rows: TaskRows, model: _Model) -> Read:
    return [model.encode(row, row.text, row.pair) for row in rows.rows], _decided(rows, model)


def _decided(rows: TaskRows, model: _Model) -> list[Any] | None:
    decide = _DECISIONS[problem_of(model.problem, len(model.labels))]
    return decide(rows.rows, model.labels) if rows.is_labelled else None


def _seen(rows: TaskRows, model: _Model) -> Read:
    pictures = [FromFile("pixel_values", partial(_picture, row, model.processor)) for row in rows.rows]
    return pictures, _decided(rows, model)


def _single(rows: Sequence[Row], names: Sequence[str]) -> list[Any]:
    return [index for (index,) in _indices(rows, [[row.label] for row in rows], names)]


def _several(rows: Sequence[Row], names: Sequence[str]) -> list[Any]:
    lists = [several(row.label) for row in rows]
    return [frozenset(indices) for indices in _indices(rows, lists, names)]


def several(label: Any, place: str = "the data") -> list[Any]:
    """Labels of one example: a JSON list, or names with bars between them.

    Raises `UserError` for what begins like a list and is no JSON, as Python writes lists.
    """
    value = _from_json(label)
    if isinstance(value, str) and value.startswith("["):
        raise UserError(f"{place}: {value[:60]} is not a JSON list", 'write ["one", "another"], or one|another')
    return value if isinstance(value, list) else str(value).split("|")


def _quantity(rows: Sequence[Row], names: Sequence[str]) -> list[Any]:
    return [number_of(row) for row in rows]


def number_of(row: Row) -> float:
    """A row's label as a number. Raises `UserError` for what is none."""
    try:
        number = float(str(row.label))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{row.place}: the label '{row.label}' is not a number", "fix or remove that row")
    return number


_DECISIONS: Mapping[str, Callable[[Sequence[Row], Sequence[str]], list[Any]]] = {
    SINGLE_LABEL: _single,
    MULTI_LABEL: _several,
    REGRESSION: _quantity,
}


def _indices(rows: Sequence[Row], lists: Sequence[Iterable[Any]], names: Sequence[str]) -> list[list[int]]:
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


def _tagged(examples: TaskRows, model: _Model) -> Read:
    rows = examples.rows
    encodings = [model.encode(row, row.text, is_split_into_words=True) for row in rows]
    if not examples.is_labelled:
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


def _answered(examples: TaskRows, model: _Model) -> Read:
    rows = examples.rows
    encodings = [
        model.encode(row, row.text, row.pair, truncation="only_second", return_offsets_mapping=True) for row in rows
    ]
    if not examples.is_labelled:
        return encodings, None
    truth, found = [], [answers_of(row) for row in rows]
    none_is_said = any(not texts for texts, _ in found)
    for row, encoding, answers in zip(rows, encodings, found, strict=True):
        pairs = zip(encoding["offset_mapping"], encoding.sequence_ids(0), strict=True)
        offsets = tuple((offset[0], offset[1]) if part == 1 else None for offset, part in pairs)
        truth.append(AnswerTruth(str(row.pair), offsets, *answers, none_is_said))
    return encodings, truth


def answers_of(row: Row) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Answers as SQuAD has them, {"text": […], "answer_start": […]}, as a list, or as one text.

    And where each begins in the context: as the row says, or else where it first occurs (-1: nowhere).
    """
    value = _from_json(row.label)
    said = value.get("answer_start") if isinstance(value, dict) else None
    value = value.get("text") if isinstance(value, dict) else value
    if isinstance(value, str) and value.startswith("{"):
        raise UserError(f"{row.place}: {value[:60]} is not JSON", 'write {"text": ["one"], "answer_start": [0]}')
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{row.place}: the answers are not texts", 'write {"text": ["one", "another"]} or one text')
    context = str(row.pair)
    said = [said] if isinstance(said, int) else said
    if said and len(said) != len(texts):
        raise UserError(f"{row.place}: {len(texts)} answers, and answer_start has {len(said)}", "give one for each")
    starts = said if isinstance(said, list) and len(said) == len(texts) else [context.find(text) for text in texts]
    wrong = [text for text, at in zip(texts, starts, strict=True) if said and context[at : at + len(text)] != text]
    if wrong:
        raise UserError(
            f"{row.place}: '{wrong[0]}' is not where answer_start says", "leave answer_start out, or fix it"
        )
    kept = [(text, at) for text, at in zip(texts, starts, strict=True) if text.strip()]
    return tuple(text for text, _ in kept), tuple(at for _, at in kept)


def _with_masks(rows: TaskRows, model: _Model) -> Read:
    """Texts where a few tokens are masked, the same ones each time; the truth is what stood there."""
    mask = model.processor.mask_token_id
    if mask is None:
        raise UserError("the tokenizer has no mask token", "give the checkpoint the tokenizer it was trained with")
    special = set(model.processor.all_special_ids)
    encodings, truth = [], []
    for row in rows.rows:
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


def _plain(rows: TaskRows, model: _Model) -> Read:
    return [model.encode(row, row.text) for row in rows.rows], None


def _continued(rows: TaskRows, model: _Model) -> Read:
    """Texts to be continued, each with the token that ends it where the model has one and the text was not cut; the
    truth is the ids."""
    end, encodings = model.processor.eos_token_id, []
    for row in rows.rows:
        ids = list(model.encode(row, row.text)["input_ids"])
        if end is not None and row.number not in model.cut and ids[-1] != end and len(ids) < model.max_length:
            ids.append(end)
        if len(ids) < 2:
            raise UserError(f"{row.place}: a text of one token has none to learn", "remove that row")
        encodings.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
    return encodings, [WrittenTruth(tuple(encoding["input_ids"])) for encoding in encodings]


def _rewritten(rows: TaskRows, model: _Model) -> Read:
    """Texts with what is to be written of each."""
    encodings, truth = [], []
    for row in rows.rows:
        written = WrittenTruth(model.written(row, model.processor(text_target=row.label, verbose=False)["input_ids"]))
        encodings.append({**model.encode(row, row.text), WRITTEN: written.ids})
        truth.append(written)
    return encodings, truth


def _heard(rows: TaskRows, model: _Model) -> Read:
    """Recordings with what is said in each, behind tokens that are all told.

    Each is read once before, so that one that cannot be is not found in the middle of a training.
    """
    listener, inputs, truth = model.processor, [], []
    for row in rows.rows:
        try:
            listener.check(row.text)
        except UserError as error:
            raise UserError(f"{row.place}: {error.message}", error.hint) from None
        said = listener.tokenizer(row.label, add_special_tokens=False, verbose=False)["input_ids"]
        written = WrittenTruth(model.written(row, [*said, listener.tokenizer.eos_token_id]), len(model.start_ids))
        held = {WRITTEN: np.array(written.ids, dtype=np.int64)}
        inputs.append(FromFile(FEATURES, partial(listener.hear, row.text), **held))
        truth.append(written)
    return inputs, truth


_READERS: Mapping[Task, Callable[[TaskRows, _Model], Read]] = {
    Task.TEXT_CLASSIFICATION: _classified,
    Task.TOKEN_CLASSIFICATION: _tagged,
    Task.QUESTION_ANSWERING: _answered,
    Task.IMAGE_CLASSIFICATION: _seen,
    Task.FILL_MASK: _with_masks,
    Task.FEATURE_EXTRACTION: _plain,
    Task.TEXT_GENERATION: _continued,
    Task.TEXT2TEXT_GENERATION: _rewritten,
    Task.SPEECH2TEXT_GENERATION: _heard,
}
