"""What a decoder remembers of each row: keys and values of every position, or a state of fixed shape."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from errors import UserError

PAST, PRESENT = "past_key_values", "present"
PAST_STATE = "past"

KEPT_NAME = re.compile(rf"(?:{PAST}|{PAST_STATE})\.(\d{{1,6}})\.(\w+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A number type of what is kept: its number in ONNX, and a type of numpy whose zeros are as long as its own."""

    number: int
    memory: type[np.generic]


KINDS: Mapping[str, Kind] = {
    "tensor(float)": Kind(1, np.float32),
    "tensor(float16)": Kind(10, np.float16),
    "tensor(bfloat16)": Kind(16, np.uint16),
}
"""By the names that ONNX Runtime has for them."""

FLOAT32 = KINDS["tensor(float)"]

STATE_BUFFERS = BEGUN, ZEROS, OTHER = range(3)
"""Of each state: what the prompt left, and two that steps write in turns; the first of these is zeros for a prompt."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One tensor that a layer keeps, (rows, *axes) of one `kind`; the axis that is `None` is the positions.

    A `key` and a `value` grow with the text. A `conv`, the last inputs of a causal convolution, and a `recurrent` state
    do not. Names are those that onnxruntime-genai knows.
    """

    layer: int
    part: str
    axes: tuple[int | None, ...]
    kind: Kind = FLOAT32

    @property
    def grows(self) -> bool:
        """Whether it has a place for each position."""
        return None in self.axes

    @property
    def name(self) -> str:
        """Layer and part."""
        return f"{self.layer}.{self.part}"

    @property
    def past(self) -> str:
        """The graph's input."""
        return f"{PAST if self.grows else PAST_STATE}.{self.name}"

    @property
    def present(self) -> str:
        """The graph's output."""
        return f"{PRESENT}.{self.name}"

    @property
    def bytes_each(self) -> int:
        """Memory of a row, or of each of its positions."""
        return np.dtype(self.kind.memory).itemsize * prod(axis for axis in self.axes if axis is not None)

    def size(self, rows: int, positions: int) -> tuple[int, ...]:
        """The shape for so many rows and positions."""
        return (rows, *(positions if axis is None else axis for axis in self.axes))


def keys_and_values(layer: int, heads: int, head_size: int) -> tuple[Kept, Kept]:
    """What an attention keeps, (rows, heads, positions, head size) each."""
    axes = heads, None, head_size
    return Kept(layer, "key", axes), Kept(layer, "value", axes)


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What all layers keep, in the order of a graph's inputs; at most `context` positions."""

    kept: tuple[Kept, ...]
    context: int

    @property
    def layers(self) -> int:
        """How many of them attend."""
        return len(self._keys)

    @property
    def heads(self) -> int:
        """Heads of each key and value; 0 where there are none, or layers differ."""
        return self._common(0)

    @property
    def head_size(self) -> int:
        """Their size; 0 where there are none, or layers differ."""
        return self._common(2)

    @property
    def _keys(self) -> tuple[Kept, ...]:
        return tuple(kept for kept in self.kept if kept.part == "key")

    def _common(self, place: int) -> int:
        sizes = {kept.axes[place] for kept in self._keys}
        return (sizes.pop() or 0) if len(sizes) == 1 else 0

    @property
    def bytes_per_position(self) -> int:
        """Memory that each position of each row takes."""
        return sum(kept.bytes_each for kept in self.kept if kept.grows)

    @property
    def state_bytes(self) -> int:
        """Memory of each row that does not grow with it: all buffers of its states."""
        return len(STATE_BUFFERS) * sum(kept.bytes_each for kept in self.kept if not kept.grows)

    def bytes(self, rows: int, positions: int) -> int:
        """Memory of so many rows and positions."""
        return rows * (positions * self.bytes_per_position + self.state_bytes)

    def of(self, kind: Kind) -> "CacheShape":
        """The same with keys and values of another number type; states stay as they are."""
        return replace(self, kept=tuple(replace(kept, kind=kind) if kept.grows else kept for kept in self.kept))


def kept_by(inputs: Sequence[Any]) -> tuple[Kept, ...]:
    """What a graph with these `inputs`, onnxruntime's descriptions of them, keeps: in their order.

    Raises `UserError` for a number type that no cache has.
    """
    found = []
    for item in inputs:
        if told := KEPT_NAME.fullmatch(item.name):
            if item.type not in KINDS:
                raise UserError(f"this decoder keeps a cache of {item.type}", f"known are: {', '.join(KINDS)}")
            axes = tuple(axis if isinstance(axis, int) else None for axis in item.shape[1:])
            found.append(Kept(int(told[1]), told[2], axes, KINDS[item.type]))
    return tuple(found)


def buffer(kept: Kept, rows: int, positions: int, at: str) -> Any:
    """An `onnxruntime.OrtValue` of zeros on the device `at`. Raises `MemoryError`."""
    import onnxruntime

    size = kept.size(rows, positions)
    if 0 in size:  # nothing to fill, of types that numpy lacks, too
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(size, kept.kind.number)
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(size, dtype=kept.kind.memory), at, 0)


class Memory:
    """The cache of some rows, bound to a graph.

    Keys and values are written where they are read, as the attention's kernel does it. A state is read from one buffer
    and left in another, because an operator may write before every other has read. What a prompt leaves is never
    written over by steps, so that these can be taken back.
    """

    def __init__(self, binding: Any, shape: CacheShape, rows: int, capacity: int, at: str) -> None:
        """On the device `at`. Raises `MemoryError`."""
        self._binding, self._at, self._latest = binding, at, ZEROS
        self._buffers: list[Any] = []  # bound by their addresses
        self._states: list[tuple[Kept, list[Any]]] = []
        for kept in shape.kept:
            if kept.grows:
                grown = buffer(kept, rows, capacity, at)
                self._bind(kept, grown, grown)
                self._buffers.append(grown)
            else:
                self._states.append((kept, [buffer(kept, rows, capacity, at) for _ in STATE_BUFFERS]))
        self.begin()

    @property
    def has_states(self) -> bool:
        """Whether any state is in it."""
        return bool(self._states)

    def begin(self) -> None:
        """Let the next pass read a prompt."""
        for kept, buffers in self._states:
            buffers[ZEROS].update_inplace(np.zeros(buffers[ZEROS].shape(), dtype=kept.kind.memory))
        self._turn(ZEROS, BEGUN)

    def go_on(self) -> None:
        """Let the next pass read what this one left."""
        self._turn(self._latest, OTHER if self._latest == ZEROS else ZEROS)

    def take_back(self) -> None:
        """Let the next pass read what the prompt left."""
        self._turn(BEGUN, ZEROS)

    def _turn(self, source: int, target: int) -> None:
        for kept, buffers in self._states:
            self._bind(kept, buffers[source], buffers[target])
        self._latest = target

    def _bind(self, kept: Kept, source: Any, target: Any) -> None:
        """Read one buffer and write the other: by their addresses, for types that numpy lacks."""
        place = self._at, 0, kept.kind.number, source.shape()
        self._binding.bind_input(kept.past, *place, source.data_ptr())
        self._binding.bind_output(kept.present, *place, target.data_ptr())
