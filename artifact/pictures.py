"""Pictures that become pixels when they are asked for, or once for all who look at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from artifact.predict.images import ImageSettings, prepare_picture, read_picture
from artifact.records import sha256_bytes, sha256_file


@dataclass(frozen=True, slots=True)
class Pictures:
    """Files by their paths, and how each becomes pixels, float32 (channels, height, width), all of one size."""

    items: tuple[str, ...]
    settings: ImageSettings

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int, /) -> NDArray[np.float32]:
        """The pixels of one. Raises `UserError` as `read_picture` does, naming the file."""
        return prepare_picture(read_picture(self.items[place], self.settings), self.settings)

    def stack(self, places: Sequence[int]) -> NDArray[np.float32]:
        """Those at these places, (pictures, channels, height, width)."""
        return np.stack([self[place] for place in places])

    def write(self, path: Path) -> None:
        """All of them as a `.npy` file, one after another: together they may not fit into memory.

        Raises `OSError` where the disk is full, which would kill a process that had mapped the file to write it.
        """
        shape = (len(self), *self[0].shape)
        with path.open("wb") as file:
            write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for place in range(len(self)):
                file.write(self[place].astype("<f4").tobytes())

    @property
    def sha256(self) -> str:
        """Hash of what the files hold, and of how they are read."""
        held = [sha256_file(Path(item)) for item in self.items]
        return sha256_bytes(msgspec.json.encode([held, self.settings]))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `Pictures` wrote."""

    path: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def stack(self, places: Sequence[int]) -> NDArray[np.float32]:
        """Those at these places. The file is mapped only meanwhile: its pages would count as this process's memory."""
        return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[list(places)])
