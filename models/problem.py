"""What there is to learn in each kind of label: its names and its targets (light: no torch)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.task import REWRITES, Task
from errors import UserError
from models.metrics import AnswerTruth, TokenTruth, WrittenTruth
from models.rows import Row, TaskRows
from models.task_examples import answers_of, number_of, several
from models.training import Problem

IGNORED = -100
"""A target that nothing is learnt from, as PyTorch's cross-entropy has it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of label is learnt.

    `names` are the labels that a row has (none: nothing is named), and `rename` puts others in their place. `target`
    makes what the loss wants of a row's truth, its number of tokens and the number of labels.
    """

    target: Callable[[Any, int, int], NDArray[Any]]
    names: Callable[[Row], Iterable[str]] = lambda row: ()
    rename: Callable[[Any, Mapping[str, str]], Any] = lambda label, names: label
    per_token: bool = False


def _one(truth: int, tokens: int, labels: int) -> NDArray[Any]:
    return np.array(truth, dtype=np.int64)


def _several(truth: Iterable[int], tokens: int, labels: int) -> NDArray[Any]:
    marked = np.zeros(labels, dtype=np.float32)
    marked[list(truth)] = 1
    return marked


def _quantity(truth: float, tokens: int, labels: int) -> NDArray[Any]:
    return np.array([truth], dtype=np.float32)


def _tags(truth: TokenTruth, tokens: int, labels: int) -> NDArray[Any]:
    """The tag of each word at its first token."""
    found = np.full(tokens, IGNORED, dtype=np.int64)
    for position, tag in zip(truth.first_tokens, truth.tags, strict=True):
        if position >= 0:
            found[position] = truth.labels.index(tag)
    return found


def _span(truth: AnswerTruth, tokens: int, labels: int) -> NDArray[Any]:
    """First and last token of the first answer: the first token for a question that has none; nothing is learnt from an
    answer that was cut off, or does not occur in the context."""
    if not truth.answers:
        return np.zeros(2, dtype=np.int64)
    start = truth.starts[0]
    end = start + len(truth.answers[0])
    inside = [
        place
        for place, offset in enumerate(truth.offsets)
        if offset is not None and offset[0] < end and offset[1] > start
    ]
    known = [offset for offset in truth.offsets if offset is not None]
    if start < 0 or not inside or max(offset[1] for offset in known) < end:
        return np.full(2, IGNORED, dtype=np.int64)
    return np.array([inside[0], inside[-1]], dtype=np.int64)


def _next(truth: WrittenTruth, tokens: int, labels: int) -> NDArray[Any]:
    """At each token the one after it, if that is guessed."""
    return np.array([*[IGNORED] * (truth.told - 1), *truth.ids[truth.told :], IGNORED], dtype=np.int64)


def _written(label: Any) -> str:
    return str(label).strip()


KINDS: Mapping[Problem, Kind] = {
    Problem.SINGLE_LABEL: Kind(
        _one,
        names=lambda row: (_written(row.label),),
        rename=lambda label, names: names[_written(label)],
    ),
    Problem.MULTI_LABEL: Kind(
        _several,
        names=lambda row: map(_written, several(row.label)),
        rename=lambda label, names: [names[_written(name)] for name in several(label)],
    ),
    Problem.REGRESSION: Kind(_quantity),
    Problem.TAGS: Kind(
        _tags,
        names=lambda row: map(_written, row.label if isinstance(row.label, list) else ()),
        rename=lambda label, names: [names[_written(tag)] for tag in label],
        per_token=True,
    ),
    Problem.SPAN: Kind(_span),
    Problem.NEXT_TOKEN: Kind(_next, per_token=True),
}

OF_TASK: Mapping[Task, Problem] = {
    Task.TOKEN_CLASSIFICATION: Problem.TAGS,
    Task.QUESTION_ANSWERING: Problem.SPAN,
    Task.TEXT_GENERATION: Problem.NEXT_TOKEN,
    Task.TEXT2TEXT_GENERATION: Problem.NEXT_TOKEN,
    Task.SPEECH2TEXT_GENERATION: Problem.NEXT_TOKEN,
}
CLASSIFIED = (Problem.SINGLE_LABEL, Problem.MULTI_LABEL, Problem.REGRESSION)
LEARNT = (Task.TEXT_CLASSIFICATION, Task.IMAGE_CLASSIFICATION, *OF_TASK)
"""Tasks that fine-tuning is for."""


def problem_of_rows(rows: TaskRows, asked: Problem | None) -> Problem:
    """What there is to learn: what the user says, or what the labels look like.

    Lists of labels, and names with bars between them, are several labels; numbers of which one has a fraction are a
    quantity. Raises `UserError` for a task or a problem that cannot be.
    """
    known = OF_TASK.get(rows.task)
    if rows.task not in LEARNT:
        raise UserError(f"{rows.task} cannot be fine-tuned here", f"known are: {', '.join(LEARNT)}")
    if known is not None or asked is not None:
        if asked is not None and (asked not in CLASSIFIED if known is None else asked is not known):
            raise UserError(f"{rows.task} is no {asked} problem", "leave --problem out")
        return known or asked or Problem.SINGLE_LABEL
    labels = [_written(row.label) for row in rows.rows]
    if any(isinstance(row.label, list) for row in rows.rows) or all(label.startswith("[") for label in labels):
        return Problem.MULTI_LABEL
    if any("|" in label for label in labels):
        return Problem.MULTI_LABEL
    if all(map(_is_number, labels)) and not all(float(label).is_integer() for label in labels):
        return Problem.REGRESSION
    return Problem.SINGLE_LABEL


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def check_labels(rows: TaskRows, problem: Problem) -> None:
    """Raise `UserError` for rows whose labels are not what the problem needs; a check that reads no model."""
    for row in rows.rows:
        if problem is Problem.REGRESSION:
            number_of(row)
        if problem is Problem.TAGS and (not isinstance(row.label, list) or len(row.label) != len(row.text)):
            raise UserError(f"{row.place}: there is not one tag for each of {len(row.text)} words", "fix that row")
        if problem is Problem.SPAN:
            answers_of(row)
        if rows.task in REWRITES and not isinstance(row.label, str):
            raise UserError(f"{row.place}: {row.label!r} is not a text", "give the text that is to be written")
        if problem is Problem.SINGLE_LABEL and isinstance(row.label, list | dict):
            raise UserError(
                f"{row.place}: {row.label!r} is not one label", "fix that row, or say --problem multi-label"
            )
        if problem is Problem.MULTI_LABEL:
            several(row.label, row.place)
    if problem is Problem.MULTI_LABEL and _only_marks([several(row.label) for row in rows.rows]):
        raise UserError(
            f"{rows.source} marks labels by 0 and 1, and does not say which is which",
            "write the names of those that hold",
        )


def _only_marks(labels: Sequence[Sequence[Any]]) -> bool:
    """Whether every row has a 0 or 1 for each of several labels, and no names."""
    return len(set(map(len, labels))) == 1 and len(labels[0]) > 1 and all(x in (0, 1) for row in labels for x in row)


def label_names(rows: Iterable[Row], problem: Problem) -> tuple[str, ...]:
    """Every label of the rows, sorted, numbers by their size; a quantity has one, called `score`."""
    if problem is Problem.REGRESSION:
        return ("score",)
    found = {name for row in rows for name in KINDS[problem].names(row)}
    return tuple(sorted(found, key=lambda name: (int(name) if name.isdecimal() else -1, name)))
