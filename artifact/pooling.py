"""How the vectors of a text's tokens become one (light: the command's options name it)."""

from dataclasses import dataclass
from enum import StrEnum

POOLED = "sentence_embedding"
"""What a pooled model's output is called."""


class PoolingMode(StrEnum):
    """How a text's token vectors become one, in sentence-transformers' names."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    LAST = "lasttoken"


@dataclass(frozen=True, slots=True)
class Pooling:
    """A mode, and whether the vector is scaled to length 1."""

    mode: PoolingMode
    normalize: bool = False

    def __str__(self) -> str:
        return f"{self.mode}{', scaled to length 1' if self.normalize else ''}"


def asking_for(pooling: Pooling | None) -> str:
    """The options with which `export` makes it; any, where none is known."""
    if pooling is None:
        return "--pooling, such as --pooling mean"
    return f"--pooling {pooling.mode}{' --normalize' if pooling.normalize else ''}"
