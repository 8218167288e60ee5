"""Recordings that become features when they are asked for: of an hour these take more memory than its samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from artifact.predict.sounds import SoundSettings, prepare_recording, read_recording
from artifact.records import sha256_bytes, sha256_file


@dataclass(frozen=True, slots=True)
class Recordings:
    """WAV files by their paths, or their bytes, and how each becomes features, float32 (bins, frames)."""

    items: tuple[str | bytes, ...]
    sound: SoundSettings

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int, /) -> NDArray[np.float32]:
        """The features of one. Raises `UserError` as `read_recording` does, naming the file."""
        return prepare_recording(read_recording(self.items[place], self.sound), self.sound)

    def check(self) -> None:
        """Raise `UserError` for the first that is no recording, or not one that the model takes."""
        for item in self.items:
            read_recording(item, self.sound)

    def select(self, places: Sequence[int]) -> "Recordings":
        """Those at these places, in this order."""
        return replace(self, items=tuple(self.items[place] for place in places))

    @property
    def sha256(self) -> str:
        """Hash of what the files hold, and of how they are read."""
        held = [sha256_bytes(item) if isinstance(item, bytes) else sha256_file(Path(item)) for item in self.items]
        return sha256_bytes(msgspec.json.encode([held, self.sound]))
