"""Texts continued by a decoder, one as it comes or several at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from artifact.generate.decoder import Decoder, reads
from artifact.generate.encoder import NOTHING, Given, Read
from artifact.generate.manifest import Rewriting
from artifact.generate.pieces import Pieces
from artifact.generate.sampling import Sampler, Sampling
from artifact.generate.stopping import Reason, RowText, Stopping
from errors import UserError

Ending = Reason | Literal["interrupted"]
"""Why a text ended: by itself, or by Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """At most so many new tokens, how they are drawn, and texts that end it."""

    most: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A continuation without its prompt: its text, its tokens with the one that ended it, and why it ended."""

    text: str
    tokens: tuple[int, ...]
    ending: Ending


class _Row:
    """One text on its way: all its tokens, and the pieces that were shown."""

    def __init__(self, prompt: Sequence[int], text: RowText) -> None:
        self.history, self._begin = list(prompt), len(prompt)
        self._text, self._shown = text, list[str]()

    @property
    def has_ended(self) -> bool:
        return self._text.reason is not None

    def push(self, token: int) -> str:
        """Take one more token; the text that may be shown now, nothing after the end."""
        if self.has_ended:
            return ""
        self.history.append(token)
        self._shown.append(self._text.push(token))
        return self._shown[-1]

    @property
    def written(self) -> Written:
        return Written("".join(self._shown), tuple(self.history[self._begin :]), self._text.reason or "interrupted")


class Writer:
    """A decoder with its tokenizer and the tokens that end a text."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        ends: Sequence[int],
        never: Sequence[int] = (),
        rewriting: Rewriting | None = None,
    ) -> None:
        """Whatever padding or truncation the tokenizer has is taken off."""
        self._decoder, self._tokenizer, self._ends = decoder, tokenizer, frozenset(ends)
        self._never, self._rewriting = list(never), rewriting
        self._never_first = [] if rewriting is None else list(rewriting.never_first_ids)
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def tokens(self, text: str, *, is_chat: bool = False) -> list[int]:
        """The ids of a prompt; a chat's template has written the special tokens already."""
        return list(self._tokenizer.encode(text, add_special_tokens=not is_chat).ids)

    def stream(self, prompt: Read, wanted: Wanted) -> Iterator[str]:
        """A text in pieces, as they come. Raises `UserError` for a prompt that is empty or too long."""
        (row,) = rows = self._rows([prompt], wanted)
        for tokens in self._run(rows, wanted, self._inputs([prompt])):
            if piece := row.push(int(tokens[0])):
                yield piece

    def write(self, prompts: Sequence[Read], wanted: Wanted) -> list[Written]:
        """Several texts at once. What was written until Ctrl-C is kept, and its ending says so.

        Raises `UserError` for a prompt that is empty or too long.
        """
        rows = self._rows(prompts, wanted)
        try:
            for tokens in self._run(rows, wanted, self._inputs(prompts)):
                for row, token in zip(rows, tokens, strict=True):
                    row.push(int(token))
        except KeyboardInterrupt:
            pass  # the endings say it
        return [row.written for row in rows]

    def _rows(self, prompts: Sequence[Read], wanted: Wanted) -> list[_Row]:
        """Each with as many new tokens as the context has room for after the longest beginning."""
        begun = self._begun(prompts)
        room = self._decoder.shape.context - max(map(len, begun))
        stopping = Stopping(wanted.most if wanted.most < 1 else min(wanted.most, room), self._ends, wanted.stop)
        return [_Row(row, RowText(Pieces(self._tokenizer), stopping)) for row in begun]

    def _begun(self, prompts: Sequence[Read]) -> Sequence[Sequence[int]]:
        """What stands before the first new token: the prompts, or what an encoder-decoder always begins with."""
        texts, rewriting = [prompt for prompt in prompts if not isinstance(prompt, np.ndarray)], self._rewriting
        longest, context = max(map(len, texts), default=0), self._decoder.shape.context
        if rewriting is None:
            if longest >= context:
                raise UserError(f"a prompt has {longest} tokens, and this model's context is {context}", "shorten it")
            return texts
        most = rewriting.most_read_tokens
        if not all(texts):
            raise UserError("a text is empty", "give at least one word")
        if most is not None and longest > most:
            raise UserError(f"a text has {longest} tokens, and this model reads at most {most}", "shorten it")
        return [rewriting.start_ids] * len(prompts)

    def _inputs(self, prompts: Sequence[Read]) -> Given:
        """What an encoder reads, where there is one."""
        return NOTHING if self._rewriting is None else reads(prompts)

    def _run(self, rows: Sequence[_Row], wanted: Wanted, inputs: Given) -> Iterator[NDArray[np.int64]]:
        """The next token of each row, until all have ended; nobody reads those of a row that has."""
        prompts = [row.history for row in rows]
        most = max(map(len, prompts)) + wanted.most
        decoding = self._decoder.begin(len(rows), min(most, self._decoder.shape.context), inputs)
        sampler = Sampler(wanted.sampling, len(rows))
        logits = decoding.prompt(prompts)
        logits[:, self._never_first] = -np.inf
        while True:
            logits[:, self._never] = -np.inf
            tokens = sampler.choose(logits, [row.history for row in rows])
            yield tokens
            if all(row.has_ended for row in rows):
                return
            logits = decoding.step(tokens)
