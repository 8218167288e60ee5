"""How the files of an artifact lie."""

from enum import StrEnum


class Layout(StrEnum):
    """For `predict.py`, or as a model repository of Triton."""

    STEELYARD = "steelyard"
    TRITON = "triton"
