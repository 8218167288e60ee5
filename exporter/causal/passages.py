"""Held-out texts that language models are judged on, as tokens."""

from dataclasses import dataclass
from typing import Any

from artifact.task import Task
from errors import UserError
from exporter.request import Source
from exporter.samples import SAMPLES
from models.rows import read_task_rows

LONGEST = 128
"""Tokens of a text that are looked at: more texts say more than longer ones, for the same work."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Texts as ids, each of at least two, and where they come from."""

    name: str
    rows: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Tokens that are predicted: all but each text's first."""
        return sum(len(row) - 1 for row in self.rows)


def read_passages(source: Source | None, tokenizer: Any, context: int) -> Passages:
    """The texts of a file, or a few of our own. Raises `UserError` when none has two tokens."""
    texts: tuple[str, ...] = SAMPLES
    if source is not None:
        texts = read_task_rows(source.path, Task.TEXT_GENERATION, columns=source.columns, limit=source.limit).texts
    name = "texts of our own" if source is None else source.path.name
    most = min(LONGEST, context)
    found = [tuple(tokenizer(text, truncation=True, max_length=most)["input_ids"]) for text in texts]
    rows = tuple(row for row in found if len(row) > 1)
    if not rows:
        raise UserError(f"{name} holds no text of two tokens", "give longer texts with --data")
    return Passages(name, rows)
