"""Token ids that are looked at before a GPU gets them: of one that no table has, its engines make nonsense without a
word, or the process cannot use it any more."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import padded
from artifact.generate.encoder import IDS
from runtimes.base import About, Batch, check_indices
from runtimes.language import Continuing, Logits


class Guard:
    """Refuses ids that a table of so many `rows` does not have, and tells in a sentence what an engine raises of
    others, by its `about`."""

    def __init__(self, rows: Mapping[str, int], engine: str, about: Callable[[Batch], About]) -> None:
        self._rows, self._engine, self._about = rows, engine, about

    def __call__(self, batch: Batch) -> About:
        """What stands around a call with these ids. Raises `UserError`."""
        check_indices(batch, self._rows, self._engine)
        return self._about(batch)


class Guarded:
    """Rows that an engine continues, behind a guard."""

    def __init__(self, continuing: Continuing, guard: Guard) -> None:
        self._continuing, self._guard = continuing, guard

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        with self._guard({IDS: padded(rows)[0]}):
            return self._continuing.prompt(rows)

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        with self._guard({IDS: tokens[:, None]}):
            return self._continuing.step(tokens)

    def rewind(self, positions: int) -> None:
        self._continuing.rewind(positions)
