"""A decoder's graph and its cache, which is bound in place: nothing that is kept is copied between steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.generate.cache import CacheShape, Memory, buffer, kept_by
from artifact.generate.encoder import FEATURES, HOST, IDS, MASK, NOTHING, Encoder, Given, Read
from errors import UserError

LOGITS = "logits"
POSITIONS = "logits_positions"

Logits = NDArray[np.float32]


def padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids filled up at the end with zeros, and their mask, int64 (rows, longest)."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return ids, mask


def reads(rows: Sequence[Read]) -> Given:
    """An encoder's inputs for these rows, all of one kind: ids filled up and their mask, or the features of recordings,
    which are all equally long."""
    if features := [row for row in rows if isinstance(row, np.ndarray)]:
        return {FEATURES: np.stack(features)}
    ids, mask = padded([row for row in rows if not isinstance(row, np.ndarray)])
    return {IDS: ids, MASK: mask}


class Decoding:
    """Rows that are being continued: what was read of each is in the cache, and the next token goes to its end."""

    def __init__(
        self, session: Any, shape: CacheShape, rows: int, capacity: int, read: Mapping[str, Any], at: str
    ) -> None:
        """A cache of `capacity` positions on the device `at`; `read` is what an encoder made there.

        Raises `UserError` where the model has fewer, or memory is too small.
        """
        if capacity > shape.context:
            raise UserError(
                f"{capacity} tokens are more than this model's context of {shape.context}",
                "shorten the prompt, or ask for fewer new tokens",
            )
        self._session, self._capacity = session, capacity
        self._mask = np.zeros((rows, 0), dtype=np.int64)
        self._begun = 0
        self._binding = session.io_binding()
        try:
            self._memory = Memory(self._binding, shape, rows, capacity, at)
        except MemoryError as error:
            raise UserError(
                f"a cache of {rows} × {capacity} tokens takes {shape.bytes(rows, capacity) / 1e6:.0f} MB, more memory "
                "than there is",
                "ask for fewer new tokens, or for fewer texts at once",
            ) from error
        self._read = read
        for name, value in read.items():
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_output(LOGITS, HOST)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row that the cache holds."""
        return np.asarray(self._mask.sum(axis=1))

    @property
    def left(self) -> int:
        """How many more tokens fit."""
        return self._capacity - self._mask.shape[1]

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Read the rows' first tokens; the logits of what comes next, float32 (rows, vocabulary).

        Raises `UserError` for an empty row or one that is longer than the cache, and `ValueError` for rows of unequal
        length behind an encoder, whose decoder counts positions for all rows alike.
        """
        longest = max(map(len, rows))
        if self._read and min(map(len, rows)) < longest:
            raise ValueError("rows behind an encoder begin with as many tokens each")
        if not all(rows):
            raise UserError("a prompt is empty", "give at least one token")
        if longest > self._capacity:
            raise UserError(f"a prompt has {longest} tokens, and the cache room for {self._capacity}", "shorten it")
        ids, self._mask = padded(rows)
        self._begun = longest
        self._memory.begin()
        return self._run(ids)

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Read one more token of each row; the logits of what comes next, float32 (rows, vocabulary)."""
        if not self.left:
            raise UserError(f"the cache of {self._capacity} tokens is full", "ask for fewer new tokens")
        self._mask = np.concatenate([self._mask, np.ones((len(tokens), 1), dtype=np.int64)], axis=1)
        return self._run(np.asarray(tokens, dtype=np.int64)[:, None])

    def rewind(self, positions: int) -> None:
        """Forget all but the first so many positions of each row.

        Raises `ValueError` where layers keep states and these are not the prompt's: a state does not go back further.
        """
        if self._memory.has_states and positions != self._begun:
            raise ValueError(f"the states go back to the prompt's {self._begun} positions, not to {positions}")
        self._mask = self._mask[:, :positions]
        self._memory.take_back()

    def _run(self, ids: NDArray[np.int64]) -> Logits:
        self._binding.bind_cpu_input(IDS, ids)
        self._binding.bind_cpu_input(MASK, self._mask)
        self._session.run_with_iobinding(self._binding)
        found: Logits = self._binding.get_outputs()[-1].numpy()[:, -1].copy()  # the next step writes there again
        self._memory.go_on()
        return found


class Decoder:
    """An open graph that continues rows of tokens, and the encoder that reads first, where there is one. A row's logits
    do not depend on what else is in its batch."""

    def __init__(self, session: Any, context: int, encoder: Encoder | None = None, at: str = HOST) -> None:
        """`session` is an `onnxruntime.InferenceSession`, and its cache is kept on the device `at`.

        Raises `UserError` for a graph that is no such decoder.
        """
        kept = kept_by(session.get_inputs())
        lacks = {IDS, MASK, *(item.past for item in kept)} - {item.name for item in session.get_inputs()}
        lacks |= {LOGITS, *(item.present for item in kept)} - {item.name for item in session.get_outputs()}
        if lacks or not kept or any(item.axes.count(None) > 1 for item in kept):
            raise UserError("this graph is no decoder with a cache", "export it again")
        self._session, self._encoder, self._at = session, encoder, at
        self.shape = CacheShape(kept, context)

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Decoding:
        """Rows with an empty cache of `capacity` positions each; an encoder reads their `inputs`, once for all."""
        return Decoding(self._session, self.shape, rows, capacity, self._read(inputs), self._at)

    def told(self, begun: Sequence[int], continued: Sequence[int], inputs: Given = NOTHING) -> Logits:
        """Logits of one row after what it begins with and after each token behind it, step by step: float32
        (1 + continued, vocabulary)."""
        decoding = self.begin(1, len(begun) + len(continued), inputs)
        return np.concatenate([decoding.prompt([begun]), *(decoding.step(np.array([token])) for token in continued)])

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        """Logits after each of the given tokens, (rows, tokens, vocabulary): for judging, not for generating.

        Rows are filled up at their end, where `mask` is 0 and the logits mean nothing. An encoder reads `inputs`.
        """
        import onnxruntime

        wanted = np.arange(ids.shape[1], dtype=np.int64)[None]
        feeds = {kept.past: buffer(kept, len(ids), 0, HOST) for kept in self.shape.kept}
        for name, array in {IDS: ids, MASK: mask, POSITIONS: wanted}.items():
            feeds[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        (found,) = self._session.run_with_ort_values([LOGITS], {**feeds, **self._read(inputs)})
        logits: Logits = found.numpy()
        return logits

    def _read(self, inputs: Given) -> Mapping[str, Any]:
        return {} if self._encoder is None else self._encoder.read(inputs)
