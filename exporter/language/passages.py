"""Held-out texts that language models are judged on, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.generate.decoder import reads
from artifact.generate.encoder import IDS, MASK, NOTHING, Given, Read
from artifact.task import Task
from errors import UserError
from exporter.request import Source
from exporter.samples import SAMPLES

LONGEST = 128
"""Tokens of a text that are looked at: more texts say more than longer ones, for the same work."""


class ReadRows(Protocol):
    """What an encoder reads of each row, which may be made as it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Read: ...


@dataclass(frozen=True, slots=True)
class Passages:
    """Texts as ids, and where they come from; `read` is what an encoder reads before each. The first `told` ids of a
    text, which has at least one more, are not predicted."""

    name: str
    rows: tuple[tuple[int, ...], ...]
    read: ReadRows = ()
    told: int = 1

    @property
    def tokens(self) -> int:
        """Tokens that are predicted."""
        return sum(len(row) - self.told for row in self.rows)

    def read_tokens(self, place: int) -> int:
        """Tokens that an encoder reads before a text; none where it hears a recording."""
        read = self.read[place] if self.read else ()
        return 0 if isinstance(read, np.ndarray) else len(read)

    def inputs(self, places: Sequence[int]) -> Given:
        """What an encoder is given for the texts at these places; nothing where there is none."""
        return reads([self.read[place] for place in places]) if self.read else NOTHING


def told(model: Any, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given) -> torch.Tensor:
    """Logits of an fp32 PyTorch model that is told every token: float32 (rows, tokens, vocabulary)."""
    prefix = "decoder_" if inputs else ""
    given = {**inputs, f"{prefix}{IDS}": ids, f"{prefix}{MASK}": mask}
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in given.items()}
    found: torch.Tensor = model(**tensors, use_cache=False).logits
    return found


def read_passages(source: Source | None, tokenizer: Any, context: int) -> Passages:
    """The texts of a file, or a few of our own. Raises `UserError` when none has two tokens."""
    name, texts = source_name(source), SAMPLES if source is None else source.rows(Task.TEXT_GENERATION).texts
    most = min(LONGEST, context)
    found = [tuple(tokenizer(text, truncation=True, max_length=most)["input_ids"]) for text in texts]
    long = tuple(row for row in found if len(row) > 1)
    if not long:
        raise UserError(f"{name} holds no text of two tokens", "give longer texts with --data")
    return Passages(name, long)


def source_name(source: Source | None) -> str:
    """What texts are called in a record."""
    return "texts of our own" if source is None else source.path.name
