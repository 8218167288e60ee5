"""Items to rows of inputs, and rows to batches: one reader for texts, one for pictures, one for recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from artifact.predict.images import ImageSettings, prepare_picture, read_picture
from artifact.predict.reads import Reads
from artifact.predict.sounds import SoundSettings, prepare_recording, read_recording
from artifact.predict.tokens import BATCH_TOKENS, TextEncoder, batches_by_length
from errors import UserError

ENCODED_AT_ONCE = 64
BATCH_VALUES = 8 * 3 * 256 * 256
"""Pixels or samples of a batch at most, unless one row alone has more."""


@dataclass(frozen=True, slots=True)
class Row:
    """Inputs of one row without batch axis; `encoding` is the tokenizer's, and `item` the place of what it is from."""

    item: int
    inputs: Mapping[str, Any]
    length: int
    encoding: Any = None


class Reader(Protocol):
    """Prepares items of one kind for a model."""

    def rows(self, items: Sequence[Any]) -> list[Row]:
        """The rows of all items, in order; a long item may have several. Raises `UserError` for another kind."""

    def batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Places in `rows` that are computed together."""

    def stack(self, rows: Sequence[Row], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """One batch with the inputs `names`; `UserError` for a name that cannot be filled."""

    def trim(self, output: NDArray[np.float32], row: int, length: int) -> NDArray[np.float32]:
        """One row of an output that has a value for each token, without padding."""


class TextReader:
    """Texts, pairs of them, or lists of words.

    With `windows` the second text of a pair that is too long is read in several rows. The tokenizer's own encodings
    take fifty times the memory of the ids, so they are kept only where `encodings` are asked for.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        reads: Reads,
        *,
        windows: bool = False,
        encodings: bool = True,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self._encoder, self._reads, self._windows, self._encodings = encoder, reads, windows, encodings
        self._batch_tokens = batch_tokens

    def rows(self, items: Sequence[Any]) -> list[Row]:
        for item in items:
            self._check(item)
        rows: list[Row] = []
        for is_words in (False, True):
            group = [place for place, item in enumerate(items) if isinstance(item, list) is is_words]
            for start in range(0, len(group), ENCODED_AT_ONCE):
                places = group[start : start + ENCODED_AT_ONCE]
                encodings = self._encoder.encodings([items[place] for place in places])
                for place, encoding in zip(places, encodings, strict=True):
                    parts = (encoding, *(encoding.overflowing if self._windows else ()))
                    rows.extend(self._row(place, part) for part in parts)
        return sorted(rows, key=lambda row: row.item)

    def _row(self, place: int, encoding: Any) -> Row:
        ids = np.asarray(encoding.ids, dtype=np.int64)
        inputs = {
            "input_ids": ids,
            "attention_mask": np.asarray(encoding.attention_mask, dtype=np.int64),
            "token_type_ids": np.asarray(encoding.type_ids, dtype=np.int64),
        }
        return Row(place, inputs, len(ids), encoding if self._encodings else None)

    def _check(self, item: Any) -> None:
        if self._reads is Reads.PAIR:
            fits = isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)
        elif self._reads is Reads.WORDS:
            fits = isinstance(item, str) or (isinstance(item, list) and all(isinstance(part, str) for part in item))
        else:
            fits = isinstance(item, str)
        if not fits:
            wanted = {Reads.PAIR: "two texts: (text, text)", Reads.WORDS: "a text, or a list of words"}
            raise UserError(f"the model reads {wanted.get(self._reads, 'a text')}, not {type(item).__name__}")

    def batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        return batches_by_length([row.length for row in rows], self._batch_tokens)

    def stack(self, rows: Sequence[Row], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        return dict(self._encoder.pad([row.inputs for row in rows], names))

    def trim(self, output: NDArray[np.float32], row: int, length: int) -> NDArray[np.float32]:
        return output[row, -length:] if self._encoder.limits.pad_left else output[row, :length]


class ArrayReader:
    """Pictures or recordings: each becomes one array, the input `name`, and those of one shape are computed together.

    `prepare` makes the array of a path, of a file's bytes, or of pixels or samples.
    """

    def __init__(self, name: str, prepare: Callable[[Any], NDArray[np.float32]]) -> None:
        self._name, self._prepare = name, prepare

    @classmethod
    def of_pictures(cls, settings: ImageSettings) -> "ArrayReader":
        return cls("pixel_values", lambda item: prepare_picture(read_picture(item, settings), settings))

    @classmethod
    def of_recordings(cls, settings: SoundSettings) -> "ArrayReader":
        return cls(settings.input_name, lambda item: prepare_recording(read_recording(item, settings), settings))

    def rows(self, items: Sequence[Any]) -> list[Row]:
        arrays = [self._prepare(item) for item in items]
        return [Row(place, {self._name: array}, array.size) for place, array in enumerate(arrays)]

    def batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, row in enumerate(rows):
            shapes.setdefault(row.inputs[self._name].shape, []).append(place)
        for places in shapes.values():
            count = max(1, BATCH_VALUES // max(1, rows[places[0]].length))
            for start in range(0, len(places), count):
                yield places[start : start + count]

    def stack(self, rows: Sequence[Row], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        if list(names) != [self._name]:
            raise UserError(f"the model wants the inputs {', '.join(names)}, and only {self._name} is made")
        return {self._name: np.stack([row.inputs[self._name] for row in rows])}

    def trim(self, output: NDArray[np.float32], row: int, length: int) -> NDArray[np.float32]:
        return np.asarray(output[row])
