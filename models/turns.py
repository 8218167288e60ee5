"""How several trainings take turns: how far each is, and what is asked before each of its steps (light: no torch)."""

from collections.abc import Callable
from typing import NamedTuple


class Steps(NamedTuple):
    """How far a training (its fingerprint) is: steps that are done, of how many, their seconds, whether it is over."""

    training: str
    done: int
    total: int
    seconds_s: float
    over: bool = False


Turn = Callable[[Steps], None]
"""Called before each step and after the last; it returns when the training may go on."""


def always(steps: Steps) -> None:
    """A `Turn` that never waits."""
