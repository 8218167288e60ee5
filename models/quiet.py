"""Libraries that talk on import or advise their own developers, kept off the terminal."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

ON_IMPORT = ("torchao", "torch.utils._pytree")
"""What accelerate and torchao's own modules warn of while they are imported, whatever is then used of them."""


@contextmanager
def hushed(*loggers: str) -> Iterator[None]:
    """Let only errors of these loggers through inside the block, and no Python warnings."""
    quieted = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in quieted]
    for logger in quieted:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(quieted, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def unseen(*packages: str) -> Iterator[None]:
    """Let imports inside the block find none of these packages, unless they are loaded already.

    Libraries import whatever they could use of what is installed, and keep it in memory.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's own word for "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
