"""Memory that a stage has needed."""

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

MADV_PAGEOUT = 21
"""Linux's name for it, which Python has not."""


def return_freed_memory() -> None:
    """Give what was freed back to the system, where glibc keeps it for what may come: between small arrays that stay it
    would be lost to all others. Other C libraries have no such call."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def lay_aside(arrays: Iterable[NDArray[Any]]) -> None:
    """Tell Linux that these are not read for a while, as far as they lie in mapped files, of which they are read again
    when they are needed: a checkpoint in fp32 does, and one that was converted while it was loaded does not.

    Other systems are told nothing.
    """
    if sys.platform != "linux":
        return
    advise, files = ctypes.CDLL(None).madvise, _mapped_files()
    for array in arrays:
        start = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (array.ctypes.data + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end and any(first <= start and end <= last for first, last in files):
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_PAGEOUT)


def _mapped_files() -> list[tuple[int, int]]:
    """Where this process has files in memory, from `/proc/self/maps`: anonymous memory has no inode there."""
    maps = Path("/proc/self/maps")
    lines = (line.split() for line in (maps.read_text().splitlines() if maps.exists() else ()))
    spans = (fields[0].split("-") for fields in lines if fields[4] != "0")
    return [(int(first, 16), int(last, 16)) for first, last in spans]


def weights_of(model: Any) -> Iterator[NDArray[Any]]:
    """The weights of a PyTorch model on the CPU, of a dtype that numpy has, where they lie."""
    return (weight.detach().numpy() for weight in model.parameters())
