"""How long work tells whoever is watching how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Called by long work; drawing is the caller's business."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `stage` are finished."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that says nothing."""
