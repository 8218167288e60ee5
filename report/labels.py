"""Where the names of points go, so that none covers another one or a point."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

LINE = 16.0
"""Height of a name, in the units of the drawing."""

LETTER, AIR = 7.3, 6.0
"""Width that a letter takes on average in a wide font, and the air beside a name."""

POINT = 7.0
"""Half the width of a point and the air around it."""

LIFTS = (0, -1, 1, -2, 2, -3, 3, -4, 4)
"""By how many lines a name may stand above (-) or below its point, the best first."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True, slots=True)
class Label:
    """Where a name stands: the middle of its line, and SVG's `text-anchor`. `lift` is 0 beside the point."""

    x: float
    y: float
    anchor: str
    lift: int
    box: Box


def place(
    names: Sequence[str], points: Sequence[tuple[float, float]], room: Box, taken: Sequence[Box] = ()
) -> tuple[Label | None, ...]:
    """A place inside of `room` for each name, the first names first, or `None` where all of them are taken.

    Beside the point if that is free, else some lines above or below it.
    """
    occupied = [*taken, *(Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points)]
    labels: list[Label | None] = []
    for name, (x, y) in zip(names, points, strict=True):
        tried = (_label(name, x, y, lift, side) for lift, side in product(LIFTS, (1, -1, 0)) if lift or side)
        free = (label for label in tried if room.holds(label.box) and not any(map(label.box.overlaps, occupied)))
        label = next(free, None)
        if label:
            occupied.append(label.box)
        labels.append(label)
    return tuple(labels)


def _label(name: str, x: float, y: float, lift: int, side: int) -> Label:
    """A name at the right (1), at the left (-1) or above or below the middle (0) of a point."""
    width, middle = LETTER * len(name) + AIR, y + lift * LINE
    at = x + side * (POINT + 2 if not lift else POINT / 2)
    left = {1: at, 0: at - width / 2, -1: at - width}[side]
    anchor = {1: "start", 0: "middle", -1: "end"}[side]
    return Label(at, middle, anchor, lift, Box(left, middle - LINE / 2, left + width, middle + LINE / 2))
