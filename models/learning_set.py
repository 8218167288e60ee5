"""Examples as the Trainer takes them: inputs, targets and what a teacher said, batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from errors import UserError
from models.example_set import ExampleSet, answered, length
from models.problem import IGNORED, Kind
from models.training import Lengths

TARGETS = "labels"
"""What the Trainer calls what is right."""

GUIDE = "guide"
"""Name of an example's logits by the teacher, beside its inputs."""

STEP = 8
"""Tokens."""

SHORTEST = 16
"""Tokens of the first class of lengths; each further one has twice as many."""


@dataclass(frozen=True, slots=True)
class LearningSet:
    """A data set of PyTorch's kind. `targets` are int64 or float32, one array for each example."""

    examples: ExampleSet
    targets: Sequence[NDArray[Any]]
    guides: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> dict[str, NDArray[Any]]:
        row = {**self.examples.rows[place], TARGETS: self.targets[place]}
        return row if self.guides is None else {**row, GUIDE: self.guides[place]}

    def guided(self, guides: NDArray[np.float32]) -> "LearningSet":
        """The same with a teacher's logits, shape (examples, labels)."""
        return replace(self, guides=guides)


def learning_set(examples: ExampleSet, kind: Kind, labels: int) -> LearningSet:
    """Examples with the targets of a kind of problem.

    Raises `ValueError` where nothing is labelled, and `UserError` where nothing of that can be learnt.
    """
    if examples.truth is None:
        raise ValueError("there is nothing to learn without labels")
    pairs = zip(examples.truth, examples.rows, strict=True)
    targets = [kind.target(truth, answered(row), labels) for truth, row in pairs]
    if all((target == IGNORED).all() for target in targets):
        raise UserError(
            "there is nothing to learn: every answer was cut off, or does not occur in its context",
            "raise --max-length, or check the answers",
        )
    return LearningSet(examples, targets)


@dataclass(frozen=True, slots=True)
class Collate:
    """Stacks rows, and fills the shorter ones at their end.

    The length of what is filled is a multiple of `STEP`, unless that is more than the `longest` row has: kernels are
    made anew, and kept, for each shape, and those of GPUs want multiples of 8.
    """

    padding: Mapping[str, float]
    longest: Mapping[str, int]

    def __call__(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, torch.Tensor]:
        titles = tuple(f"example {number} of a batch" for number in range(1, len(rows) + 1))
        needed = {name: max(len(row[name]) for row in rows) for name in self.padding}
        filled = {name: max(most, min(self.longest[name], -(-most // STEP) * STEP)) for name, most in needed.items()}
        batch = ExampleSet(tuple(rows), titles, None, self.padding).batch(
            range(len(rows)), lengths=filled, pad_left=False
        )
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def collate(data: LearningSet, kind: Kind) -> Collate:
    """The collator of a data set."""
    padding = {**data.examples.padding, **({TARGETS: IGNORED} if kind.per_token else {})}
    longest = {name: max(len(row[name]) for row in data.examples.rows) for name in data.examples.padding}
    return Collate(padding, longest | ({TARGETS: max(map(len, data.targets))} if kind.per_token else {}))


def lengths(examples: ExampleSet, truncated_fraction: float) -> Lengths | None:
    """How long the rows are, or what is written of recordings; `None` for what has no tokens."""
    found = [length(row) or answered(row) for row in examples.rows]
    if not any(found):
        return None
    counts: dict[int, int] = {}
    edge = SHORTEST
    while sum(counts.values()) < len(found):
        counts[edge] = sum(tokens <= edge for tokens in found) - sum(counts.values())
        edge *= 2
    return Lengths(counts=counts, truncated_fraction=truncated_fraction)
