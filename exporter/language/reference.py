"""What PyTorch says of each told token, once for all that are judged by it: in a file, because it may be gigabytes."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.generate.decoder import padded
from artifact.generate.encoder import Given
from artifact.records import cannot_write
from exporter.language.passages import Passages, told
from exporter.language.sizes import sizes_of

FLOAT_BYTES = 4
BATCH_TOKENS = 256
"""Logits of so many tokens are held at once, for the reference and one variant: 50 MB for 49,000 words."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Passages that are told at once, at these places: int64 (rows, tokens), filled up at their end. `predicted`,
    (rows, tokens - 1), marks the positions behind which a token is told that is to be predicted."""

    places: list[int]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    inputs: Given
    predicted: torch.Tensor

    @classmethod
    def of(cls, passages: Passages, places: list[int]) -> "Batch":
        ids, mask = padded([passages.rows[place] for place in places])
        predicted = torch.from_numpy(mask[:, 1:].astype(bool))
        predicted[:, : passages.told - 1] = False
        return cls(places, ids, mask, passages.inputs(places), predicted)

    @property
    def target(self) -> torch.Tensor:
        """The tokens to be predicted."""
        return torch.from_numpy(self.ids[:, 1:])[self.predicted]

    @property
    def owner(self) -> torch.Tensor:
        """The row of each of them."""
        return torch.arange(len(self.places))[:, None].expand_as(self.predicted)[self.predicted]

    def picked(self, logits: torch.Tensor) -> torch.Tensor:
        """Of logits of all tokens, (rows, tokens, vocabulary), those that predict: (predicted, vocabulary)."""
        return logits[:, :-1][self.predicted]


@dataclass(frozen=True, slots=True)
class Reference:
    """What an fp32 PyTorch model in eval mode says of passages, batch by batch; by one reader at a time.

    From a `file` where that was written, and else the model says it anew to each reader.
    """

    model: Any
    passages: Passages
    file: FileIO | None = None

    def __iter__(self) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Each batch with its logits, float32 (predicted, vocabulary)."""
        if self.file is not None:
            self.file.seek(0)
        for batch in self._batches():
            yield batch, self._said(batch) if self.file is None else self._read(batch, self.file)

    def written_to(self, file: FileIO) -> "Reference":
        """The same, read from a file that keeps all of it. Raises `OSError` where the disk is full."""
        for batch in self._batches():
            left = memoryview(self._said(batch).numpy().tobytes())
            while left:  # a full disk takes a part, and then nothing
                left = left[file.write(left) :]
        return Reference(self.model, self.passages, file)

    def _batches(self) -> Iterator[Batch]:
        """Made as they are needed: an encoder's features may be larger than what is told behind them."""
        rows = self.passages.rows
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        return (Batch.of(self.passages, places) for places in _batches(rows, order))

    def _said(self, batch: Batch) -> torch.Tensor:
        with torch.inference_mode():
            return batch.picked(told(self.model, batch.ids, batch.mask, batch.inputs)).float()

    def _read(self, batch: Batch, file: FileIO) -> torch.Tensor:
        tokens, every = len(batch.target), self.passages.tokens
        data = bytearray(os.fstat(file.fileno()).st_size // every * tokens)
        left = memoryview(data)
        while left:
            if not (count := file.readinto(left)):
                raise RuntimeError("the reference's answers are cut short")
            left = left[count:]
        return torch.frombuffer(data, dtype=torch.float32).view(tokens, -1)


def kept_bytes(model: Any, passages: Passages) -> int:
    """Bytes of the file that keeps what a model says of passages."""
    return FLOAT_BYTES * passages.tokens * sizes_of(model).vocabulary


@contextmanager
def kept(model: Any, passages: Passages, folder: Path) -> Iterator[Reference]:
    """The reference in a file of this folder's disk, which has no name and is gone after the block.

    Raises `UserError` where the disk is full.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            found = Reference(model, passages).written_to(file)
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield found


def _batches(rows: Sequence[Sequence[int]], order: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows in this order, so many at once as have `BATCH_TOKENS` with their padding."""
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) + 1) * len(rows[place]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    yield batch
