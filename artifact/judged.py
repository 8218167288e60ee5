"""What of a model's answer is right or wrong by itself, and so what an accuracy is a share of."""

from collections.abc import Mapping
from enum import StrEnum

from artifact.task import Activation, Task


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
