"""Memory that a stage has needed."""

import ctypes
import mmap
from collections.abc import Iterable, Iterator
from contextlib import suppress
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
    """Tell Linux that the memory of these is not read for a while. Pages of a mapped file are read from it again when
    they are needed; nothing else changes, and other systems have no such call."""
    with suppress(AttributeError, OSError, TypeError):
        advise = ctypes.CDLL(None).madvise
        for array in arrays:
            start = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (array.ctypes.data + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if start < end:
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_PAGEOUT)


def weights_of(model: Any) -> Iterator[NDArray[Any]]:
    """The weights of a PyTorch model, where they lie."""
    return (weight.detach().numpy() for weight in model.parameters())
