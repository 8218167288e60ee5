"""What of a model's answer is right or wrong by itself, and so what an accuracy is a share of."""

from collections.abc import Mapping
from enum import StrEnum

from artifact.task import Activation, Task


class Judged(StrEnum):
    """What is decided once in each text (its label), once for each label (does it apply?), or once for each word.

    Of a text's vector, which other text's is nearest (by cosine): right where both have the same label, or without
    labels, where it is the one that the reference finds. Of scores, which of two texts has the higher one. Of a
    question, which words of its context answer it.
    """

    TEXT = "text"
    LABEL = "label"
    WORD = "word"
    VECTOR = "vector"
    SCORE = "score"
    SPAN = "span"

    @property
    def chooses(self) -> bool:
        """Whether an answer is the place of the largest logit."""
        return self in (Judged.TEXT, Judged.LABEL, Judged.WORD)

    @property
    def counted(self) -> str:
        """What an accuracy is a share of."""
        return COUNTED[self]

    @property
    def answers(self) -> str:
        """What candidates agree on."""
        return SAID.get(self, "labels")

    @property
    def measure(self) -> str:
        """What that accuracy is called."""
        return MEASURES.get(self, "accuracy")


SAID: Mapping[Judged, str] = {
    Judged.VECTOR: "nearest texts",
    Judged.SCORE: "orders",
    Judged.SPAN: "answers",
}

COUNTED: Mapping[Judged, str] = {
    Judged.TEXT: "examples",
    Judged.LABEL: "labels",
    Judged.WORD: "words",
    Judged.VECTOR: "texts",
    Judged.SCORE: "pairs",
    Judged.SPAN: "questions",
}

MEASURES: Mapping[Judged, str] = {
    Judged.VECTOR: "1-NN accuracy",
    Judged.SCORE: "pairwise accuracy",
    Judged.SPAN: "exact match",
}

BY_TASK: Mapping[Task, Judged] = {
    Task.TOKEN_CLASSIFICATION: Judged.WORD,
    Task.FEATURE_EXTRACTION: Judged.VECTOR,
    Task.QUESTION_ANSWERING: Judged.SPAN,
}


def judged_of(task: Task, activation: Activation, labels: int) -> Judged | None:
    """What a model of so many labels decides; `None` where nothing of its answer is right or wrong, such as several
    quantities."""
    if task not in (Task.TEXT_CLASSIFICATION, Task.IMAGE_CLASSIFICATION):
        return BY_TASK.get(task)
    if labels == 1:
        return Judged.SCORE if task is Task.TEXT_CLASSIFICATION else None
    if activation is Activation.NONE:
        return None
    return Judged.LABEL if activation is Activation.SIGMOID else Judged.TEXT
