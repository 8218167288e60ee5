"""Which examples a subject is compared on, and which its ranges come from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.task import Task
from errors import UserError
from exporter.request import ARRAYS, Source
from exporter.samples import PASSAGES, SAMPLES
from exporter.subject import Filling, Subject
from models.checkpoint import Checkpoint, load_image_processor, load_tokenizer, text_limits
from models.example_set import ExampleSet
from models.metrics import CLASSIFIERS, MULTI_LABEL, problem_of
from models.task_examples import read_arrays, read_task_examples

RANDOM_EXAMPLES = 16


def read_source(source: Source, subject: Subject, checkpoint: Checkpoint | None) -> ExampleSet:
    """The examples of a file. Raises `UserError` when they do not have the subject's inputs."""
    pictures = checkpoint is not None and checkpoint.task is Task.IMAGE_CLASSIFICATION
    if source.path.suffix == ARRAYS or checkpoint is None or (checkpoint.limits is None and not pictures):
        examples = _with_truth(read_arrays(source.path, limit=source.limit), source, subject, checkpoint)
    else:
        examples = read_task_examples(
            source.path,
            checkpoint.task,
            load_image_processor(checkpoint.directory) if pictures else load_tokenizer(checkpoint.directory),
            max_length=0 if pictures else text_limits(checkpoint).max_length_tokens,
            labels=checkpoint.labels,
            problem=checkpoint.problem,
            columns=source.columns,
            limit=source.limit,
        )
        if pictures:
            return examples
    wanted, found = {item.name for item in subject.inputs}, set(examples.rows[0])
    if not wanted <= found:
        raise UserError(
            f"{source.path} has {', '.join(sorted(found))}, {subject.name} takes {', '.join(sorted(wanted))}",
            "name each array after the input it is for",
        )
    kinds = {item.name: item.dtype for item in subject.inputs}
    rows = tuple({name: row[name].astype(kind) for name, kind in kinds.items()} for row in examples.rows)
    return replace(examples, rows=rows)


def _with_truth(examples: ExampleSet, source: Source, subject: Subject, checkpoint: Checkpoint | None) -> ExampleSet:
    """Examples of arrays with their labels as the task's metric wants them: numbers, sets of them, or maps."""
    if examples.truth is None or checkpoint is None:
        return replace(examples, truth=None)
    several = subject.task in CLASSIFIERS and problem_of(checkpoint.problem, len(checkpoint.labels)) == MULTI_LABEL
    axes = 2 if subject.task is Task.IMAGE_SEGMENTATION else int(several)
    if subject.task not in {*CLASSIFIERS, Task.IMAGE_SEGMENTATION}:
        raise UserError(f"{source.path}: no labels of {subject.task} fit into an array", "leave 'labels' out")
    if any(np.ndim(truth) != axes for truth in examples.truth):
        wanted = {0: "one number", 1: "a 0 or 1 for each label", 2: "a map of class numbers"}[axes]
        raise UserError(f"{source.path}: 'labels' must hold {wanted} for each example of {subject.task}")
    if several:
        examples = replace(examples, truth=tuple(tuple(np.flatnonzero(truth).tolist()) for truth in examples.truth))
    return examples


def own_examples(subject: Subject, checkpoint: Checkpoint | None) -> tuple[ExampleSet, str]:
    """Examples when the user gives none, and what they are: built-in texts, or random values."""
    if checkpoint is not None and checkpoint.limits is not None:
        return _built_in(subject, checkpoint), "built-in texts"
    rows = []
    for number in range(RANDOM_EXAMPLES):
        sizes = {axis.name: axis.trials[0] for axis in subject.axes} | {"batch": 1}
        rows.append({name: array[0] for name, array in subject.random(sizes, seed=1000 + number).items()})
    titles = tuple(f"random {number}" for number in range(RANDOM_EXAMPLES))
    return ExampleSet(rows=tuple(rows), titles=titles, truth=None, padding={}), "random values"


def _built_in(subject: Subject, checkpoint: Checkpoint) -> ExampleSet:
    tokenizer = load_tokenizer(checkpoint.directory)
    paired = checkpoint.task is Task.QUESTION_ANSWERING
    encoded = [
        tokenizer(
            text,
            passage if paired else None,
            truncation=True,
            max_length=text_limits(checkpoint).max_length_tokens,
        )
        for text, passage in zip(SAMPLES, PASSAGES, strict=True)
    ]
    names = [item.name for item in subject.inputs]
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    return ExampleSet(
        rows=tuple({name: np.array(item[name], dtype=np.int64) for name in names} for item in encoded),
        titles=SAMPLES,
        truth=None,
        padding={item.name: fill.get(item.name, 0) for item in subject.inputs if item.filling is not Filling.NORMAL},
        pad_left=tokenizer.padding_side == "left",
        items=tuple(zip(SAMPLES, PASSAGES, strict=True)) if paired else SAMPLES,
    )


def check_apart(calibration: ExampleSet, examples: ExampleSet, names: Sequence[str]) -> None:
    """Raise `UserError` when an example of the calibration is one of those that variants are judged by."""
    judged = {_key(row, names) for row in examples.rows}
    pairs = zip(calibration.rows, calibration.titles, strict=True)
    shared = [title for row, title in pairs if _key(row, names) in judged]
    if shared:
        raise UserError(
            f"{len(shared)} examples are both in the calibration and in the evaluation, such as '{shared[0][:60]}'",
            "calibrate on the training split alone: ranges taken from the evaluation would flatter int8-static",
        )


def _key(row: Mapping[str, NDArray[Any]], names: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(np.asarray(row[name]).tobytes() for name in names)
