"""When a row ends, and the text it has then."""

from dataclasses import dataclass
from typing import Literal

from artifact.generate.pieces import Pieces
from errors import UserError

Reason = Literal["end", "length", "stop"]
"""A token that ends, the limit of new tokens, or a stop string."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """What ends a row. Raises `UserError` for a limit below 1 and for an empty stop string.

    `end_ids` are the ids of `eos_token_id`, one or several; `stop_strings` are looked for in the new text alone.
    """

    max_new_tokens: int
    end_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens is {self.max_new_tokens}, below 1", "give a number such as 128")
        if "" in self.stop_strings:
            raise UserError("--stop is empty, and an empty text is everywhere", "leave it out, or give it a text")


class RowText:
    """The text of one row, told as its tokens come, until it ends.

    A token that ends the row counts as a new token and has no text, as in transformers. Of several stop strings the
    one that is whole first counts, of those the one that began first: where a text ends does not depend on how it is
    cut into tokens. The text before a stop string is kept, the rest of its token is not. Text that a stop string may
    begin with is held back until that is decided; the work for that grows with the stop strings' lengths.
    """

    def __init__(self, pieces: Pieces, stopping: Stopping) -> None:
        self.reason: Reason | None = None
        self.new_tokens = 0
        self._pieces, self._stopping = pieces, stopping
        self._held = ""

    def push(self, token_id: int) -> str:
        """The text that is sure with this token. `reason` says afterwards whether the row has ended.

        Raises `ValueError` when it had ended before.
        """
        if self.reason is not None:
            raise ValueError(f"the row ended before ({self.reason})")
        self.new_tokens += 1
        if token_id in self._stopping.end_ids:
            return self._end("end")
        text = self._sure(self._pieces.push(token_id))
        if self.reason is None and self.new_tokens == self._stopping.max_new_tokens:
            text += self._end("length")
        return text

    def _end(self, reason: Reason) -> str:
        """All that was held back, unless it completes a stop string."""
        text = self._sure(self._pieces.finish())
        if self.reason is None:
            self.reason = reason
            text += self._held
            self._held = ""
        return text

    def _sure(self, piece: str) -> str:
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stopping.stop_strings if (at := text.find(stop)) >= 0]
        if found:
            self.reason, self._held = "stop", ""
            return text[: min(found)[1]]
        kept = len(text) - max((_begun(text, stop) for stop in self._stopping.stop_strings), default=0)
        self._held = text[kept:]
        return text[:kept]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`, at most all but one of it."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
