"""What every packed program does as a process: it tells how far it is, gives memory back, and ends with a code."""

import atexit
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from artifact.predict.whole_file import Told, no_word
from errors import GateFailed, UserError

M_TOP_PAD, M_MMAP_THRESHOLD = -2, -3
"""Parameters of glibc's `mallopt`: how much more than asked for is taken at once, and from which size a block is large;
other C libraries have no such switch."""
LARGE_BYTES, AT_ONCE_BYTES = 64 * 1024, 32 * 1024**2


@contextmanager
def told_on_terminal() -> Iterator[Told]:
    """Says on a terminal how many rows are answered; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield no_word
        return
    began: list[tuple[float, int]] = []

    def told(rows: int) -> None:
        now = time.monotonic()
        if not began:
            began.append((now, rows))
        seconds, answered = now - began[0][0], rows - began[0][1]
        speed = f", {answered / seconds:,.0f} a second" if answered else ""
        print(f"\r{rows:,} rows{speed} ", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        print(file=sys.stderr)


def return_freed_blocks(large_bytes: int = LARGE_BYTES) -> None:
    """Let glibc give large freed blocks back to the system. After the first of them it would keep all that size, and
    what loading a model leaves stayed in the process: a tenth of its memory."""
    _set_malloc(M_MMAP_THRESHOLD, large_bytes)


def keep_freed_blocks() -> None:
    """Let glibc take much memory at once and keep what is freed: a process that answers a few items and ends asks the
    system for a sixth fewer pages, and is 3 to 4 % quicker."""
    _set_malloc(M_MMAP_THRESHOLD, AT_ONCE_BYTES)
    _set_malloc(M_TOP_PAD, AT_ONCE_BYTES)


def _set_malloc(parameter: int, value: int) -> None:
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(parameter, value)


def ended(run: Callable[[], int]) -> int:
    """The exit code of a program: 1 when a check did not confirm, 2 for wrong use or input; errors are told.

    When the process ends, the collector is told to pass over what is alive: looking through the modules of numpy and
    ONNX Runtime for circles takes a twentieth of a process that answers one text.
    """
    atexit.register(gc.freeze)
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GateFailed, UserError) as error:
        print(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return 1 if isinstance(error, GateFailed) else 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from there", file=sys.stderr)
        return 130
    return code
