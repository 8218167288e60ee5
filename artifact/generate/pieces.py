"""Text from tokens as they come."""

from typing import Any

from tokenizers.decoders import DecodeStream


class Pieces:
    """Gives the new text of each token; all pieces together are what decoding all tokens at once gives.

    Where tokens end inside of a letter, decoders of single bytes would also take back whole letters before it; those
    that were shown stay.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`."""
        self._tokenizer, self._stream = tokenizer, DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._told = ""

    def push(self, token: int) -> str:
        """New text; empty while the bytes of a letter are not complete."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer, token) or ""
        self._told += piece
        return piece

    def finish(self) -> str:
        """What is left: bytes that never became a letter."""
        text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        left = text.removeprefix(self._told) if text.startswith(self._told) else ""
        self._told += left
        return left
