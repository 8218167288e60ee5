"""A decoder's graph and its cache, which is bound in place: no key or value is copied between steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import FEATURES, IDS, MASK, NOTHING, Encoder, Given, Read
from errors import UserError

LOGITS = "logits"
POSITIONS = "logits_positions"
PAST, PRESENT = "past_key_values", "present"

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Keys and values of so many layers, each float32 (rows, heads, positions, head size); at most `context`
    positions."""

    layers: int
    heads: int
    head_size: int
    context: int

    @property
    def bytes_per_position(self) -> int:
        """Memory that each position of each row takes."""
        return 2 * 4 * self.layers * self.heads * self.head_size

    @property
    def names(self) -> tuple[str, ...]:
        """Of each layer's keys and values, in order."""
        return tuple(f"{layer}.{part}" for layer in range(self.layers) for part in ("key", "value"))


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

    def __init__(self, session: Any, shape: CacheShape, rows: int, capacity: int, read: Given) -> None:
        """A cache of `capacity` positions; `read` is what an encoder made.

        Raises `UserError` where the model has fewer, or memory is too small.
        """
        if capacity > shape.context:
            raise UserError(
                f"{capacity} tokens are more than this model's context of {shape.context}",
                "shorten the prompt, or ask for fewer new tokens",
            )
        import onnxruntime

        self._session, self._shape, self._capacity = session, shape, capacity
        self._mask = np.zeros((rows, 0), dtype=np.int64)
        self._binding = session.io_binding()
        self._buffers = []
        size = rows, shape.heads, capacity, shape.head_size
        try:
            for name in shape.names:
                buffer = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(size, dtype=np.float32))
                self._binding.bind_ortvalue_input(f"{PAST}.{name}", buffer)
                self._binding.bind_ortvalue_output(f"{PRESENT}.{name}", buffer)
                self._buffers.append(buffer)
        except MemoryError as error:
            needed = rows * capacity * shape.bytes_per_position
            raise UserError(
                f"a cache of {rows} × {capacity} tokens takes {needed / 1e6:.0f} MB, more memory than there is",
                "ask for fewer new tokens, or for fewer texts at once",
            ) from error
        self._read = {name: np.ascontiguousarray(array) for name, array in read.items()}  # bound by their addresses
        for name, array in self._read.items():
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output(LOGITS)

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
        return self._run(ids)

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Read one more token of each row; the logits of what comes next, float32 (rows, vocabulary)."""
        if not self.left:
            raise UserError(f"the cache of {self._capacity} tokens is full", "ask for fewer new tokens")
        self._mask = np.concatenate([self._mask, np.ones((len(tokens), 1), dtype=np.int64)], axis=1)
        return self._run(np.asarray(tokens, dtype=np.int64)[:, None])

    def rewind(self, positions: int) -> None:
        """Forget all but the first so many positions of each row."""
        self._mask = self._mask[:, :positions]

    def _run(self, ids: NDArray[np.int64]) -> Logits:
        self._binding.bind_cpu_input(IDS, ids)
        self._binding.bind_cpu_input(MASK, self._mask)
        self._session.run_with_iobinding(self._binding)
        found: Logits = self._binding.get_outputs()[-1].numpy()[:, -1]
        return found.copy()  # the next step writes into the same memory


class Decoder:
    """An open graph that continues rows of tokens, and the encoder that reads first, where there is one. A row's logits
    do not depend on what else is in its batch."""

    def __init__(self, session: Any, context: int, encoder: Encoder | None = None) -> None:
        """`session` is an `onnxruntime.InferenceSession`. Raises `UserError` for a graph that is no such decoder."""
        sizes = {item.name: item.shape for item in session.get_inputs()}
        layers = sum(name.startswith(f"{PAST}.") and name.endswith(".key") for name in sizes)
        outputs = [item.name for item in session.get_outputs()]
        if not {IDS, MASK} <= set(sizes) or not layers or LOGITS not in outputs:
            raise UserError("this graph is no decoder with a cache", "export it again")
        _, heads, _, size = sizes[f"{PAST}.0.key"]
        self._encoder = encoder
        self._session, self.shape = session, CacheShape(layers, int(heads), int(size), context)

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Decoding:
        """Rows with an empty cache of `capacity` positions each; an encoder reads their `inputs`, once for all."""
        return Decoding(self._session, self.shape, rows, capacity, self._read(inputs))

    def told(self, begun: Sequence[int], continued: Sequence[int], inputs: Given = NOTHING) -> Logits:
        """Logits of one row after what it begins with and after each token behind it, step by step: float32
        (1 + continued, vocabulary)."""
        decoding = self.begin(1, len(begun) + len(continued), inputs)
        return np.concatenate([decoding.prompt([begun]), *(decoding.step(np.array([token])) for token in continued)])

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        """Logits after each of the given tokens, (rows, tokens, vocabulary): for judging, not for generating.

        Rows are filled up at their end, where `mask` is 0 and the logits mean nothing. An encoder reads `inputs`.
        """
        shape = self.shape
        empty = np.zeros((len(ids), shape.heads, 0, shape.head_size), dtype=np.float32)
        wanted = np.arange(ids.shape[1], dtype=np.int64)[None]
        feeds = {**self._read(inputs), IDS: ids, MASK: mask, POSITIONS: wanted} | {
            f"{PAST}.{name}": empty for name in shape.names
        }
        found: Logits = self._session.run([LOGITS], feeds)[0]
        return found

    def _read(self, inputs: Given) -> Given:
        return NOTHING if self._encoder is None else self._encoder.read(inputs)
