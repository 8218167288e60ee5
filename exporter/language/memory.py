"""Memory that a stage has needed."""

import ctypes
import mmap
from contextlib import suppress
from typing import Any

MADV_PAGEOUT = 21
"""Linux's name for it, which Python has not."""


def return_freed_memory() -> None:
    """Give what was freed back to the system, where glibc keeps it for what may come: between small arrays that stay it
    would be lost to all others. Other C libraries have no such call."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def lay_aside(model: Any) -> None:
    """Tell Linux that a model's weights are not read for a while. Pages of a file that is mapped are read from it again
    when they are; nothing else changes, and other systems have no such call."""
    with suppress(AttributeError, OSError, TypeError):
        advise = ctypes.CDLL(None).madvise
        for weight in model.parameters():
            start = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (weight.data_ptr() + weight.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if start < end:
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_PAGEOUT)
