"""Ids to text, piece by piece as they come."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer

from errors import UserError

CONTEXT = 4
"""Ids before a new one that its text may depend on: a character has up to four bytes, each of which may be an id."""
LONGEST_WINDOW = 16
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

LOCAL = frozenset(("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "WordPiece"))
"""Decoders that never change the text of earlier tokens, but for bytes that are awaited."""
JOINING = frozenset(("ByteLevel", "Fuse"))


class Pieces:
    """The text of one row. Its pieces, joined, are `tokenizer.decode(ids, skip_special_tokens=True)`.

    Text is held back while it may still change: the bytes of a character that is not whole, and, where a tokenizer
    falls back to bytes, a whole run of them, for one wrong byte spoils its run. Only a window of ids is decoded each
    time, so the work for a token does not grow with the text. `tokenizers.decoders.DecodeStream` has the same idea,
    but tells a run of bytes before it is whole and never tells what it holds back at the end.

    Raises `UserError` for a decoder that rewrites text over the bounds of tokens: no piece of such a text is sure
    before its end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        steps = list(_steps(tokenizer))
        _check_local(steps)
        kinds = {step["type"] for step in steps}
        self._holds_runs, self._holds_characters = "ByteFallback" in kinds, "ByteLevel" in kinds
        self._tokenizer = tokenizer
        self._skipped = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
        self._window: list[int] = []
        self._told = ""

    def push(self, token_id: int) -> str:
        """The new text; empty for a special token, for an id without a token, and while bytes are awaited."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token in self._skipped:
            return ""
        self._window.append(token_id)
        if self._holds_runs and _is_byte(token):
            return ""
        text = self._text()
        sure = len(text) - 1 if self._holds_characters and text.endswith(REPLACEMENT) else len(text)
        piece = self._tell(text, max(sure, len(self._told)))
        if len(self._window) > LONGEST_WINDOW:
            self._shorten(awaited=len(text) - len(self._told))
        return piece

    def finish(self) -> str:
        """The rest: what was held back for bytes that do not come any more."""
        text = self._text()
        return self._tell(text, len(text))

    def _text(self) -> str:
        text = str(self._tokenizer.decode(self._window, skip_special_tokens=True))
        if not text.startswith(self._told):
            raise ValueError(f"the tokenizer took back {self._told!r}: it is now {text!r}")
        return text

    def _tell(self, text: str, sure: int) -> str:
        piece = text[len(self._told) : sure]
        self._told = text[:sure]
        return piece

    def _shorten(self, awaited: int) -> None:
        """Forget ids that no new text depends on. `awaited`: characters at the end that are not told yet."""
        self._window = self._window[-CONTEXT:]
        self._told = ""
        text = self._text()
        self._told = text[: len(text) - awaited]


def _steps(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The tokenizer's decoders in order, as `tokenizer.json` writes them."""
    if tokenizer.decoder is None:
        return
    decoder = json.loads(tokenizer.decoder.__getstate__())
    if decoder["type"] == "Sequence":
        yield from decoder["decoders"]
    else:
        yield decoder


def _check_local(steps: Sequence[dict[str, Any]]) -> None:
    """A `Strip` may take up to as many characters from the front as the context surely has, a `Replace` must not look
    over the bounds of tokens."""
    joined = False
    for step in steps:
        kind = step["type"]
        is_local = kind in LOCAL
        if kind == "Strip":
            is_local = step["start"] <= CONTEXT
        elif kind == "Replace":
            is_local = not joined or len(step["pattern"].get("String", "  ")) == 1
        if not is_local:
            raise UserError(
                f"tokenizer.json has the decoder {json.dumps(step, ensure_ascii=False)[:120]}, whose text is not sure "
                "before its end",
                "generate with a model whose tokenizer decodes token by token",
            )
        joined = joined or kind in JOINING


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
