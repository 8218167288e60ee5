"""Texts continued by a decoder, one as it comes or several at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import Decoder
from artifact.generate.pieces import Pieces
from artifact.generate.sampling import Sampler, Sampling
from artifact.generate.stopping import Ending, StopTexts
from errors import UserError


@dataclass(frozen=True, slots=True)
class Wanted:
    """At most so many new tokens, how they are drawn, and texts that end it."""

    most: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UserError(f"--max-new-tokens is {self.most}", "give a number from 1")


@dataclass(frozen=True, slots=True)
class Written:
    """A continuation without its prompt: its text, its tokens, and why it ended."""

    text: str
    tokens: tuple[int, ...]
    ending: Ending


class _Row:
    """One text on its way."""

    def __init__(self, prompt: Sequence[int], tokenizer: Any, wanted: Wanted, ends: frozenset[int]) -> None:
        self.history = list(prompt)
        self.ending: Ending | None = None
        self._begin, self._most, self._ends = len(prompt), wanted.most, ends
        self._pieces, self._stop, self._shown = Pieces(tokenizer), StopTexts(wanted.stop), list[str]()

    def push(self, token: int) -> str:
        """Take one more token; the text that may be shown now."""
        if self.ending is not None:
            return ""
        if token in self._ends:
            return self.end(Ending.END)
        self.history.append(token)
        piece = self._show(self._stop.push(self._pieces.push(token)))
        if self._stop.is_over:
            self.ending = Ending.STOP
            return piece
        return piece + (self.end(Ending.LENGTH) if len(self.history) - self._begin >= self._most else "")

    def end(self, ending: Ending) -> str:
        """End it; the text that was held back."""
        last = self._stop.push(self._pieces.finish())
        self.ending = Ending.STOP if self._stop.is_over else ending
        return self._show(last + self._stop.finish())

    def _show(self, piece: str) -> str:
        self._shown.append(piece)
        return piece

    @property
    def written(self) -> Written:
        return Written("".join(self._shown), tuple(self.history[self._begin :]), self.ending or Ending.INTERRUPTED)


class Writer:
    """A decoder with its tokenizer and the tokens that end a text."""

    def __init__(self, decoder: Decoder, tokenizer: Any, ends: Sequence[int]) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`; whatever padding or truncation it has is taken off."""
        self._decoder, self._tokenizer, self._ends = decoder, tokenizer, frozenset(ends)
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def tokens(self, text: str, *, is_chat: bool = False) -> list[int]:
        """The ids of a prompt; a chat's template has written the special tokens already."""
        return list(self._tokenizer.encode(text, add_special_tokens=not is_chat).ids)

    def stream(self, prompt: Sequence[int], wanted: Wanted) -> Iterator[str]:
        """A text in pieces, as they come. Raises `UserError` for a prompt that is empty or too long."""
        row = _Row(prompt, self._tokenizer, wanted, self._ends)
        for tokens in self._run([row], wanted):
            if piece := row.push(int(tokens[0])):
                yield piece
        if row.ending is None and (piece := row.end(Ending.LENGTH)):
            yield piece

    def write(self, prompts: Sequence[Sequence[int]], wanted: Wanted) -> list[Written]:
        """Several texts at once. What was written until Ctrl-C is kept, and its ending says so.

        Raises `UserError` for a prompt that is empty or too long.
        """
        rows = [_Row(prompt, self._tokenizer, wanted, self._ends) for prompt in prompts]
        ending = Ending.LENGTH
        try:
            for tokens in self._run(rows, wanted):
                for row, token in zip(rows, tokens, strict=True):
                    row.push(int(token))
        except KeyboardInterrupt:
            ending = Ending.INTERRUPTED
        for row in rows:
            if row.ending is None:
                row.end(ending)
        return [row.written for row in rows]

    def _run(self, rows: Sequence[_Row], wanted: Wanted) -> Iterator[NDArray[np.int64]]:
        """The next token of each row, until all have ended or the context is full; of one that has, nobody reads it."""
        prompts = [row.history for row in rows]
        longest = max(map(len, prompts))
        room = self._decoder.shape.context - longest
        if room < 1:
            raise UserError(
                f"a prompt has {longest} tokens, and this model's context is {self._decoder.shape.context}",
                "shorten it",
            )
        decoding = self._decoder.begin(len(rows), longest + min(wanted.most, room))
        sampler = Sampler(wanted.sampling, len(rows))
        logits = decoding.prompt(prompts)
        while True:
            tokens = sampler.choose(logits, [row.history for row in rows])
            yield tokens
            if all(row.ending is not None for row in rows):
                return
            if not decoding.left:
                return
            logits = decoding.step(tokens)
