"""Where a text ends: at one of the model's own last tokens, at a text that was asked for, or at a number of tokens."""

from collections.abc import Sequence
from enum import StrEnum

from errors import UserError


class Ending(StrEnum):
    """Why a text ended."""

    END = "end"
    LENGTH = "length"
    STOP = "stop"
    INTERRUPTED = "interrupted"


class StopTexts:
    """Lets text through up to the first of some texts; what could be the beginning of one is held back."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises `UserError` for an empty text, which would end everything at once."""
        if not all(texts):
            raise UserError("--stop has an empty text", "leave it out")
        self._texts, self._held = tuple(texts), ""
        self.is_over = False

    def push(self, piece: str) -> str:
        """What may be shown after one more piece."""
        if self.is_over:
            return ""
        text = self._held + piece
        found = [place for stop in self._texts if (place := text.find(stop)) >= 0]
        if found:
            self.is_over, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._texts), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back and began no stop."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest beginning of `stop` that ends `text`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
