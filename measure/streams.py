"""The pipes of a worker process."""

import os
import sys
from typing import BinaryIO


def own_streams() -> tuple[BinaryIO, BinaryIO]:
    """Where requests come from and where replies go; what libraries print goes to standard error from now on."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin.buffer, replies


def leave(replies: BinaryIO) -> None:
    """End the process at once: tearing an engine down takes a second and tells nothing."""
    replies.flush()
    sys.stderr.flush()
    os._exit(0)
