"""The contract of engines that continue texts: what was read is kept, and a token at a time is read behind it."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import NOTHING, Given
from runtimes.base import Executed, RuntimeInfo

Logits = NDArray[np.float32]


class Continuing(Protocol):
    """Rows that are being continued, with a cache of what was read of them."""

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Read the first tokens of rows of equal length; the logits of what comes next, float32 (rows, vocabulary)."""

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Read one more token of each row; the logits of what comes next, float32 (rows, vocabulary)."""

    def rewind(self, positions: int) -> None:
        """Forget all but the first so many positions of each row; where layers keep states, those of the prompt."""


class LanguageRuntime(Protocol):
    """A language model on one engine and device: cheap to construct, acquired on entry, released on exit."""

    @property
    def info(self) -> RuntimeInfo:
        """What really ran; only valid between entry and exit."""

    def __enter__(self) -> Self:
        """Load the model. Raises `UserError` if the engine cannot give exactly what was asked for."""

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Continuing:
        """Rows with an empty cache for `capacity` positions each; an encoder reads `inputs` here or with the prompt."""

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        """Logits after each of the given tokens, float32 (rows, tokens, vocabulary); where `mask` is 0, which is at the
        end of rows, they mean nothing. An encoder reads `inputs`."""

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """What a pass of `every` executes, in the engine's own words; `None` where it does not tell."""

    def peak_device_bytes(self) -> int | None:
        """Most accelerator memory held so far, or `None` where there is no accelerator or it cannot be known."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the model and its memory."""
