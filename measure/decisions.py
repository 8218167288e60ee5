"""What of an answer is right or wrong by itself: a text's label, each label that it may have, or each of its words."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from artifact.examples import Examples
from artifact.task import Activation, Task
from errors import UserError


class Judged(StrEnum):
    """What is decided once in each text (its label), once for each label (does it apply?), or once for each word."""

    TEXT = "text"
    LABEL = "label"
    WORD = "word"

    @property
    def counted(self) -> str:
        """What an accuracy is a share of."""
        return COUNTED[self]


COUNTED: Mapping[Judged, str] = {Judged.TEXT: "examples", Judged.LABEL: "labels", Judged.WORD: "words"}


def judged_of(task: Task, activation: Activation, labels: int) -> Judged | None:
    """What a model of so many labels decides; `None` where that is no choice, such as a quantity or a vector."""
    if task is Task.TOKEN_CLASSIFICATION:
        return Judged.WORD
    if task is not Task.TEXT_CLASSIFICATION or activation is Activation.NONE or labels < 2:
        return None
    return Judged.LABEL if activation is Activation.SIGMOID else Judged.TEXT


def decisions(judged: Judged, logits: NDArray[np.float32], places: Sequence[int]) -> NDArray[np.float32]:
    """One example's logits as one row for each decision, whose largest value is the choice.

    `logits` are (labels,), or of words (tokens, labels) without padding, where `places` are the tokens that speak for
    the words that are judged. A label that applies has a logit above 0, which is what "no" is given.
    """
    match judged:
        case Judged.TEXT:
            return logits[np.newaxis]
        case Judged.LABEL:
            return np.stack([np.zeros_like(logits), logits], axis=-1)
        case Judged.WORD:
            return logits[list(places)]


def right_decisions(
    judged: Judged, examples: Examples, names: Sequence[str], places: Sequence[Sequence[int]]
) -> list[int]:
    """What each decision should be, example after example: the position of the label or tag, or 1 for a label that
    applies. Words without a place were cut off, and are not judged.

    Where none of all that is written is one of `names`, numbers are the positions themselves. Raises `UserError` naming
    the first unknown label and its example, and the first example that has not one tag for each word.
    """
    written = [(label,) if isinstance(label, str) else label for label in examples.labels]
    positions = {name: index for index, name in enumerate(names)}
    if not any(label in positions for labels in written for label in labels):
        positions = {str(index): index for index in range(len(names))}
    found: list[int] = []
    for row, labels in enumerate(written, start=1):
        if unknown := [label for label in labels if label not in positions]:
            raise UserError(
                f"{examples.source}, example {row}: unknown label '{unknown[0]}'",
                f"the model knows: {', '.join(names)}",
            )
        right = [positions[label] for label in labels]
        if judged is Judged.LABEL:
            right = [int(index in right) for index in range(len(names))]
        elif judged is Judged.WORD:
            if len(right) != len(examples.texts[row - 1]):
                raise UserError(
                    f"{examples.source}, example {row}: there is not one tag for each word", "fix or remove that row"
                )
            right = [index for index, place in zip(right, places[row - 1], strict=True) if place >= 0]
        found += right
    return found
