"""`golden.json`: examples that an artifact proves itself with."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predict.typed import build, read_json
from errors import GateFailed

GOLDEN_VERSION = 2
MOST_GOLDEN_BYTES = 32 * 2**20
MOST_VALUES = 512
INPUT_TOLERANCE = 1e-4
"""Largest error of a prepared pixel or sample. Ids, being whole numbers, must be equal."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """An array without its batch axis: its shape and its values, or of a long one those at the places `at`."""

    shape: tuple[int, ...]
    values: tuple[int | float, ...]
    at: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.shape, default=1) < 0 or np.prod(self.shape, dtype=np.float64) > 2**31:
            raise ValueError(f"no array has the shape {self.shape}")
        size = int(np.prod(self.shape, dtype=np.int64))
        if len(self.values) != (size if self.at is None else len(self.at)) or len(self.values) > 2**20:
            raise ValueError(f"{len(self.values)} values do not fit the shape {self.shape}")
        if self.at and not 0 <= min(self.at) <= max(self.at) < size:
            raise ValueError("a place lies outside of its array")

    @classmethod
    def of(cls, array: NDArray[Any], *, whole: bool = False) -> "Sampled":
        """All values of a short array; of a long one its largest and others spread evenly over it, unless `whole`."""
        flat = array.reshape(-1)
        if whole or flat.size <= MOST_VALUES:
            return cls(shape=array.shape, values=tuple(flat.tolist()))
        spread = np.linspace(0, flat.size - 1, MOST_VALUES // 2).round().astype(np.int64)
        largest = np.argsort(-flat, kind="stable")[: MOST_VALUES // 2]
        places = np.unique(np.concatenate((spread, largest)))
        return cls(shape=array.shape, at=tuple(places.tolist()), values=tuple(flat[places].tolist()))

    def error(self, array: NDArray[Any]) -> float:
        """Largest absolute difference of an array; infinite for another shape and for what is no number."""
        if array.shape != self.shape:
            return float("inf")
        found = array.reshape(-1).astype(np.float64)
        if self.at is not None:
            found = found[list(self.at)]
        errors = np.abs(found - np.asarray(self.values, dtype=np.float64))
        return float(np.nan_to_num(errors, nan=np.inf).max()) if errors.size else 0.0


@dataclass(frozen=True, kw_only=True)
class GoldenExample:
    """One item, the inputs that it becomes, and the reference's outputs for it alone.

    The item is `text`, with `pair` behind it where there are two, or `words`, or `file`: a PNG picture or a WAV
    recording in base64.
    """

    inputs: dict[str, Sampled]
    outputs: dict[str, Sampled]
    text: str | None = None
    pair: str | None = None
    words: tuple[str, ...] | None = None
    file: str | None = None

    @property
    def item(self) -> Any:
        """What `Predictor.predict` takes. Raises `GateFailed` when there is nothing, or no base64."""
        if self.text is not None:
            return self.text if self.pair is None else (self.text, self.pair)
        if self.words is not None:
            return list(self.words)
        return from_base64(self.file or "")


def from_base64(text: str) -> bytes:
    """The bytes of a file. Raises `GateFailed` for what is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise GateFailed(f"golden.json: a file is not base64: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Golden:
    """`golden.json`. `tolerance` bounds the absolute error of each output; a run's own file has none yet (empty)."""

    schema_version: int
    checkpoint_sha256: str
    tolerance: dict[str, float]
    examples: tuple[GoldenExample, ...]


def read_golden(folder: Path) -> Golden:
    """The golden examples of an artifact; `GateFailed` when they are missing, damaged or of another version."""
    path = folder / "golden.json"
    golden = build(Golden, read_json(path, MOST_GOLDEN_BYTES), str(path))
    if golden.schema_version != GOLDEN_VERSION:
        raise GateFailed(f"{path} has schema_version {golden.schema_version}; this reads {GOLDEN_VERSION}")
    return golden


def compare_inputs(example: GoldenExample, found: Mapping[str, NDArray[Any]]) -> str | None:
    """How prepared inputs (without batch axis) differ from the packed ones, or `None` where they agree."""
    for name, expected in example.inputs.items():
        if name not in found:
            return f"the model has no input {name}"
        bound = 0.0 if np.issubdtype(found[name].dtype, np.integer) else INPUT_TOLERANCE
        if not expected.error(found[name]) <= bound:
            return f"its {name} differ from the reference's"
    return None
