"""What is to be learnt of which examples, settled before anything is loaded (light: no torch)."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from artifact.records import fingerprint
from artifact.task import Task
from errors import UserError
from models.checkpoint import open_checkpoint
from models.identity import identity
from models.metrics import Metric, metric_of
from models.problem import KINDS, check_labels, label_names, problem_of_rows
from models.rows import TaskRows
from models.split import Split, split
from models.training import FinetuneConfig, Problem, Teacher

VALIDATED = 0.1
"""Share of the training examples that tells when to end."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A base model, examples with their final labels, who helps, and how.

    `parts` are all examples to train on and those that are held out. Of the first, `learnt` are learnt from, and
    `validation`, if any, tells when to end. `mark` is the fingerprint of it all.
    """

    base_model: str
    base_sha256: str
    task: Task
    problem: Problem
    parts: Split
    learnt: TaskRows
    validation: TaskRows | None
    labels: tuple[str, ...]
    teacher: Teacher | None
    config: FinetuneConfig
    mark: str

    @property
    def metric(self) -> Metric:
        return metric_of(self.task, self.problem, len(self.labels))

    @property
    def validated_by(self) -> str:
        """What tells which step was the best."""
        return "accuracy" if self.problem is Problem.SINGLE_LABEL else "loss"

    def counts(self, rows: TaskRows) -> dict[str, int]:
        """How often each label occurs."""
        return _counts(rows, self.problem, self.labels)


def assign(
    base_model: str,
    data: TaskRows,
    evaluation: TaskRows | None,
    labels: tuple[str, ...] | None,
    problem: Problem | None,
    teacher: Teacher | None,
    config: FinetuneConfig,
) -> Assignment:
    """Check the examples, hold some out, name their labels. Raises `UserError` for whatever cannot be learnt so."""
    problem = problem_of_rows(data, problem)
    _check_settings(config, problem)
    for part in (data, *([evaluation] if evaluation else [])):
        check_labels(part, problem)
    parts = split(data, evaluation, held_out=config.held_out, seed=config.seed, problem=problem)
    parts, names = _name_labels(parts, problem, labels, own_split=evaluation is None)
    base_sha256 = identity(base_model)
    taught = (
        None
        if teacher is None
        else [_check_teacher(teacher, data.task, problem, names), teacher.share, teacher.temperature]
    )
    mark = fingerprint(
        {
            "base": base_sha256,
            "config": msgspec.to_builtins(config),
            "task": data.task,
            "problem": problem,
            "train": parts.train.sha256,
            "evaluation": parts.evaluation.sha256,
            "labels": names,
            "teacher": taught,
        }
    )
    learnt, validation = _validated(parts.train, problem, names, config)
    return Assignment(
        base_model=base_model,
        base_sha256=base_sha256,
        task=data.task,
        problem=problem,
        parts=parts,
        learnt=learnt,
        validation=validation,
        labels=names,
        teacher=teacher,
        config=config,
        mark=mark,
    )


def _check_settings(config: FinetuneConfig, problem: Problem) -> None:
    """Raise `UserError` for what is asked of a problem that has no such thing."""
    if config.balance and problem is not Problem.SINGLE_LABEL:
        raise UserError("--balance is about examples of one label each", "leave it out")
    if config.label_smoothing and problem is Problem.REGRESSION:
        raise UserError("--label-smoothing is about labels, and these are numbers", "leave it out")


def _name_labels(
    parts: Split, problem: Problem, names: tuple[str, ...] | None, *, own_split: bool
) -> tuple[Split, tuple[str, ...]]:
    """The examples with their final labels, and these in order: as sorted in the data, numbers by their size.

    A rare tag may have fallen into our own held-out part alone; of an evaluation file that is an error.
    """
    known = (*parts.train.rows, *parts.evaluation.rows) if own_split else parts.train.rows
    found = label_names(known, problem)
    if problem is Problem.TAGS and names is None and all(name.isdecimal() for name in found):
        raise UserError(
            f"{parts.train.source} has numbers for tags, and which of them is no entity cannot be known",
            f"name them in their order, such as --labels O,B-PER,I-PER for {', '.join(found[:3])}",
        )
    if names is not None and len(names) != len(found):
        raise UserError(
            f"--labels names {len(names)} labels, the data has {len(found)}: {', '.join(found)}",
            "name them in this order" if found else "leave --labels out",
        )
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"--labels names '{Counter(names).most_common(1)[0][0]}' twice", "give each label its own name")
    kind = KINDS[problem]
    for row in parts.evaluation.rows:
        unknown = [name for name in kind.names(row) if name not in found]
        if unknown:
            raise UserError(f"{row.place}: unknown label '{unknown[0]}'", f"the training data has: {', '.join(found)}")
    final = dict(zip(found, names or found, strict=True))
    train, evaluation = (
        part.relabel(lambda label: kind.rename(label, final)) for part in (parts.train, parts.evaluation)
    )
    return replace(parts, train=train, evaluation=evaluation), tuple(final.values())


def _check_teacher(teacher: Teacher, task: Task, problem: Problem, labels: tuple[str, ...]) -> str:
    """Identity of the teacher. Raises `UserError` for a checkpoint that classifies something else."""
    checkpoint = open_checkpoint(Path(teacher.checkpoint))
    if task is not Task.TEXT_CLASSIFICATION or problem is not Problem.SINGLE_LABEL:
        raise UserError("a teacher is for texts of one label each", "leave --teacher out")
    if checkpoint.task is not Task.TEXT_CLASSIFICATION or sorted(checkpoint.labels) != sorted(labels):
        known = ", ".join(checkpoint.labels) or checkpoint.task
        raise UserError(
            f"the teacher {teacher.checkpoint} answers {known}, and the data has: {', '.join(labels)}",
            "give a checkpoint that was fine-tuned on these labels; --labels names those of the data",
        )
    return checkpoint.sha256


def _counts(rows: TaskRows, problem: Problem, labels: tuple[str, ...]) -> dict[str, int]:
    found = Counter(name for row in rows.rows for name in KINDS[problem].names(row))
    return {name: found[name] for name in labels if name in found}


def _validated(
    train: TaskRows, problem: Problem, labels: tuple[str, ...], config: FinetuneConfig
) -> tuple[TaskRows, TaskRows | None]:
    """The examples to learn from, and those that tell when to end, if anything shall."""
    if not config.patience:
        return train, None
    number = max(len(labels), round(VALIDATED * len(train)))
    counts = _counts(train, problem, labels) if problem is Problem.SINGLE_LABEL else {}
    rare = [name for name, count in counts.items() if count < 2 / VALIDATED]
    if rare or number >= len(train):
        least = round(2 / VALIDATED)
        few = f"'{rare[0]}' has fewer than {least}" if rare else f"there are only {len(train)}"
        raise UserError(
            f"--patience validates with a tenth of the examples, and {few}",
            "leave --patience out, or give more examples of it",
        )
    parts = split(train, None, held_out=number, seed=config.seed, problem=problem)
    return parts.train, parts.evaluation
