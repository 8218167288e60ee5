"""What PyTorch says of each told token, once for all that are judged by it: in a file, because it may be gigabytes."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.generate.decoder import padded
from artifact.generate.encoder import Given
from artifact.records import cannot_write
from exporter.language.passages import Passages, told

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
    """The reference's logits of every batch, read one batch after the other; `scale` is the largest of all."""

    passages: Passages
    scale: float
    _batches: tuple[Batch, ...]
    _file: BinaryIO
    _vocabulary: int

    def __iter__(self) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Each batch with its logits, float32 (predicted, vocabulary)."""
        self._file.seek(0)
        for batch in self._batches:
            count = int(batch.predicted.sum()) * self._vocabulary
            logits = np.fromfile(self._file, dtype=np.float32, count=count)
            yield batch, torch.from_numpy(logits).view(-1, self._vocabulary)


@contextmanager
def reference(model: Any, passages: Passages, folder: Path) -> Iterator[Reference]:
    """What an fp32 PyTorch model in eval mode says of the passages, in a file without a name that is gone after the
    block. Raises `UserError` where the folder's disk is full."""
    order = sorted(range(len(passages.rows)), key=lambda place: len(passages.rows[place]))
    batches = tuple(Batch.of(passages, places) for places in _batches(passages.rows, order))
    scale = 0.0
    with tempfile.TemporaryFile(dir=folder) as file:
        for batch in batches:
            with torch.inference_mode():
                logits = batch.picked(told(model, batch.ids, batch.mask, batch.inputs)).float()
                scale = max(scale, float(logits.abs().max()))
            try:
                logits.numpy().tofile(file)
            except OSError as error:
                raise cannot_write(folder, error) from error
        yield Reference(passages, scale, batches, file, logits.shape[-1])


def _batches(rows: Sequence[Sequence[int]], order: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows in this order, so many at once as have `BATCH_TOKENS` with their padding."""
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) + 1) * len(rows[place]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    yield batch
