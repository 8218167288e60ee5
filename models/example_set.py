"""Examples as a model takes them: one row of inputs for each, what they are called, and what is right."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import IDS
from artifact.records import sha256_bytes
from errors import UserError

WRITTEN = "decoder_input_ids"
"""What an encoder-decoder writes of what it reads; its answers are about these."""


def length(row: Mapping[str, Any]) -> int:
    """Tokens of a row; 0 for what has none, as a picture."""
    return len(row[IDS]) if IDS in row else 0


def answered(row: Mapping[str, Any]) -> int:
    """Tokens of a row that there are answers for."""
    return len(row[WRITTEN]) if WRITTEN in row else length(row)


def evenly(count: int, limit: int | None) -> list[int]:
    """At most `limit` of `count` positions, spread over all of them: files are often sorted by label."""
    picks = count if limit is None else min(count, limit)
    return [number * count // picks for number in range(picks)]


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Inputs of each example without batch axis (int64 or float32), its title, and what the task's metric wants.

    `truth` is `None` where nothing is labelled. `padding` holds the value that fills rows shorter along their first
    axis, for each input that may be; all rows have the same inputs. `items` are the texts, pairs of texts (tuples) or
    words (lists) that the rows were made of, if they were. Raises `ValueError` if the parts differ in length.
    """

    rows: tuple[Mapping[str, NDArray[Any]], ...]
    titles: tuple[str, ...]
    truth: tuple[Any, ...] | None
    padding: Mapping[str, float]
    pad_left: bool = False
    items: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.rows, self.titles, self.truth, self.items) if part is not None}
        if len(lengths) > 1:
            raise ValueError(f"rows, titles, truth and items differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indices: Sequence[int]) -> "ExampleSet":
        """The examples at these positions, in this order."""
        return ExampleSet(
            rows=tuple(self.rows[index] for index in indices),
            titles=tuple(self.titles[index] for index in indices),
            truth=None if self.truth is None else tuple(self.truth[index] for index in indices),
            padding=self.padding,
            pad_left=self.pad_left,
            items=None if self.items is None else tuple(self.items[index] for index in indices),
        )

    def batch(
        self, indices: Sequence[int], *, lengths: Mapping[str, int] | None = None, pad_left: bool | None = None
    ) -> dict[str, NDArray[Any]]:
        """Each input of these examples stacked, shape (examples, …); at least one example must be asked for.

        Inputs named in `padding` are filled along their first axis to the longest row, or to what `lengths` says of
        them. Raises `UserError` naming the examples when others differ in shape, `ValueError` for a row longer than
        that.
        """
        left = self.pad_left if pad_left is None else pad_left
        batch = {}
        for name in self.rows[indices[0]]:
            arrays = [self.rows[index][name] for index in indices]
            self._check_shapes(name, arrays, indices)
            if name in self.padding:
                longest = (lengths or {}).get(name, max(map(len, arrays)))
                arrays = [_padded(array, longest, self.padding[name], left=left) for array in arrays]
            batch[name] = np.stack(arrays)
        return batch

    def _check_shapes(self, name: str, arrays: Sequence[NDArray[Any]], indices: Sequence[int]) -> None:
        fixed = 1 if name in self.padding else 0
        first = arrays[0]
        for index, array in zip(indices, arrays, strict=True):
            if array.ndim != first.ndim or array.shape[fixed:] != first.shape[fixed:]:
                raise UserError(
                    f"'{name}' has the shape {first.shape} in {self.titles[indices[0]]!r} "
                    f"and {array.shape} in {self.titles[index]!r}",
                    "bring all examples to one size",
                )

    @property
    def sha256(self) -> str:
        """Hash of the inputs, how they are padded, and the truth; titles do not matter."""
        digest = hashlib.sha256(_json([dict(self.padding), self.pad_left, self.truth]))
        for row in self.rows:
            for name, array in sorted(row.items()):
                digest.update(_json([name, array.dtype.str, array.shape]))
                digest.update(array.tobytes())
        return digest.hexdigest()


def _padded(array: NDArray[Any], length: int, value: float, *, left: bool) -> NDArray[Any]:
    missing = length - len(array)
    if missing < 0:
        raise ValueError(f"a row of {len(array)} does not fit into {length}")
    filling = np.full((missing, *array.shape[1:]), value, dtype=array.dtype)
    return np.concatenate((filling, array) if left else (array, filling))


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain, order="deterministic")


def _plain(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.shape, sha256_bytes(value.tobytes())]
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a truth of {type(value).__name__}")  # what msgspec asks of a hook that has no answer
