"""What is chosen of an artifact besides its model; light to import, so that the command line can name it."""

from dataclasses import dataclass
from enum import StrEnum


class Layout(StrEnum):
    """How the files lie: for `predict.py`, or as a model repository of Triton."""

    STEELYARD = "steelyard"
    TRITON = "triton"


@dataclass(frozen=True, kw_only=True)
class Extras:
    """A layout, a Dockerfile, and hashes of all packages (for this platform, asked of pip)."""

    layout: Layout = Layout.STEELYARD
    dockerfile: bool = False
    hashes: bool = False


PLAIN = Extras()
"""The usual layout and nothing more."""
