"""What a model is for, and how its raw outputs become an answer."""

from enum import StrEnum


class Task(StrEnum):
    """Tasks in the field's usual names."""

    TEXT_CLASSIFICATION = "text-classification"


class Activation(StrEnum):
    """What turns logits into scores."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"
