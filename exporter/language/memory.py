"""Memory that a stage has needed."""

import ctypes
from contextlib import suppress


def return_freed_memory() -> None:
    """Give what was freed back to the system, where glibc keeps it for what may come: between small arrays that stay it
    would be lost to all others. Other C libraries have no such call."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
