"""Texts to batches of token ids, as transformers makes them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from artifact.predict.patterns import danger, patterns_of
from errors import UserError

BATCH_TOKENS = 512
BATCH_ROWS = 32
BATCH_PAIRS = 2**18
"""Pairs of tokens that attend to each other: attention's memory grows with the square of the length."""

TextItem = str | tuple[str, str] | Sequence[str]
"""A text, a pair of texts (a tuple), or a text's words (a list)."""


@dataclass(frozen=True, kw_only=True)
class TextLimits:
    """How texts are cut and padded. `max_length_tokens` counts special tokens too."""

    max_length_tokens: int
    pad_id: int
    pad_type_id: int
    pad_left: bool
    truncate_left: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_length_tokens <= 10**6:
            raise ValueError(f"max_length_tokens is {self.max_length_tokens}, not one of 1 to 1,000,000")
        if not 0 <= self.pad_id < 2**31 or not 0 <= self.pad_type_id < 2**31:
            raise ValueError("pad_id and pad_type_id are ids, from 0 on")


class TextEncoder:
    """Texts to padded batches, with the ids that transformers gives.

    Padding and truncation baked into `tokenizer.json` are switched off (some files pad every text to 128 tokens);
    truncation follows `limits`, and a batch is padded to its own longest row. With `window_overlap` only the second
    text of a pair is cut, into windows that share so many tokens. Raises `UserError` for a file that is no tokenizer,
    or whose patterns could run for years.
    """

    def __init__(self, tokenizer_json: str, limits: TextLimits, *, window_overlap: int | None = None) -> None:
        self.limits = limits
        self._tokenizer = open_tokenizer(tokenizer_json)
        self._tokenizer.no_padding()
        direction = "left" if limits.truncate_left else "right"
        windows = {} if window_overlap is None else {"stride": window_overlap, "strategy": "only_second"}
        with _told(f"the tokenizer cannot cut texts to {limits.max_length_tokens} tokens", "raise max_length_tokens"):
            self._tokenizer.enable_truncation(limits.max_length_tokens, direction=direction, **windows)

    def token(self, token_id: int) -> str:
        """The token of an id, as the vocabulary spells it."""
        return str(self._tokenizer.id_to_token(token_id))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return str(self._tokenizer.decode(list(ids)))

    def spelled(self, token_id: int) -> str:
        """One token as text, a special one too."""
        return str(self._tokenizer.decode([token_id], skip_special_tokens=False))

    def encodings(self, items: Sequence[TextItem]) -> list[Any]:
        """`tokenizers.Encoding` of each item, unpadded. Raises `UserError` for what is no text, or cannot be read."""
        is_words = bool(items) and isinstance(items[0], list)
        with _told("the tokenizer cannot take a text", "is it Unicode, and not empty?"):
            return list(self._tokenizer.encode_batch(list(items), is_pretokenized=is_words))

    def encode(self, items: Sequence[TextItem]) -> list[dict[str, list[int]]]:
        """Ids of each item, unpadded: `input_ids`, `attention_mask` and `token_type_ids`, each of the text's length."""
        return [
            {"input_ids": item.ids, "attention_mask": item.attention_mask, "token_type_ids": item.type_ids}
            for item in self.encodings(items)
        ]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text without special tokens. Raises `UserError` as `encodings` does."""
        with _told("the tokenizer cannot take a text", "is it Unicode, and not empty?"):
            return [item.ids for item in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def pad(self, encoded: Sequence[Mapping[str, Sequence[int]]], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Stack encoded texts as `pad_rows` does, with this tokenizer's padding."""
        limits = self.limits
        return pad_rows(encoded, names, pad_id=limits.pad_id, pad_type_id=limits.pad_type_id, pad_left=limits.pad_left)


def open_tokenizer(tokenizer_json: str) -> Tokenizer:
    """A tokenizer from the text of its file, whose patterns are judged first; `UserError` when it is not usable."""
    try:
        patterns = list(patterns_of(json.loads(tokenizer_json)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"tokenizer.json is not JSON: {error}", "copy the artifact again") from None
    for pattern in patterns:
        if why := danger(pattern):
            raise UserError(
                f"tokenizer.json has a pattern that could take very long: {why}: {pattern[:80]!r}",
                "it is not used; published tokenizers have none like it",
            )
    with _told("tokenizer.json cannot be read", "copy the artifact again"):
        return Tokenizer.from_str(tokenizer_json)


@contextmanager
def _told(what: str, hint: str) -> Iterator[None]:
    """Tell what the tokenizers library raises: bare `Exception`, and panics that derive from `BaseException` alone."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise UserError(f"{what}: {error}", hint) from None


def pad_rows(
    encoded: Sequence[Mapping[str, Sequence[int]]],
    names: Sequence[str],
    *,
    pad_id: int,
    pad_type_id: int,
    pad_left: bool,
) -> dict[str, NDArray[np.int64]]:
    """Stack encoded texts into int64 arrays of shape (batch, longest row), one for each of `names`.

    Raises `UserError` for a name that a tokenizer cannot fill.
    """
    fill = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": pad_type_id}
    longest = max((len(item["input_ids"]) for item in encoded), default=0)
    batch = {}
    for name in names:
        if name not in fill:
            raise UserError(f"the model wants an input '{name}', which no tokenizer gives")
        array = np.full((len(encoded), longest), fill[name], dtype=np.int64)
        for row, item in enumerate(encoded):
            values = item[name]
            if pad_left:
                array[row, longest - len(values) :] = values
            else:
                array[row, : len(values)] = values
        batch[name] = array
    return batch


def batches_by_length(lengths: Sequence[int], most_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, unless one row alone has more: at most `BATCH_ROWS` rows, `most_tokens`
    padded tokens and `BATCH_PAIRS` pairs of them in a row."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens = (len(batch) + 1) * lengths[row]
        if batch and (len(batch) == BATCH_ROWS or tokens > most_tokens or tokens * lengths[row] > BATCH_PAIRS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
