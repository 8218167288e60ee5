"""From a figure to its place on an axis, and which round figures are written along it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log, log10
from typing import Self

ROOM = 0.04
"""Share of the axis that is left free beyond the outermost values."""

LEAST_FACTOR = 1.2
"""A logarithmic axis spans at least this, so that one value alone has an axis too."""

SLACK = 1e-6
"""Share of a step by which a round figure may lie beyond the end of an axis: what rounding does to 0.83 / 0.005."""

STEPS = ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""Round figures of a decade, the most first."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, logarithmic or linear."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def logarithmic(cls, values: Iterable[float]) -> Self:
        """Around all of these positive values, with a little room at both ends."""
        low, high = _ends(values)
        room = max((high / low) ** ROOM, (LEAST_FACTOR * low / high) ** 0.5)
        return cls(low / room, high * room, is_log=True)

    @classmethod
    def linear(cls, values: Iterable[float]) -> Self:
        """Around all of these values, with a little room at both ends."""
        low, high = _ends(values)
        room = ROOM * (high - low) or ROOM * abs(high) or 1.0
        return cls(low - room, high + room, is_log=False)

    @classmethod
    def from_zero(cls, values: Iterable[float]) -> Self:
        """From nothing to the largest of these values, with a little room there."""
        return cls(0.0, (1 + ROOM) * max(values, default=0.0) or 1.0, is_log=False)

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one. What lies beyond is put at the end."""
        if self.is_log:
            place = log(value / self.low) / log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))

    def ticks(self, most: int) -> tuple[float, ...]:
        """Round figures along the axis, as many as there can be, but no more than `most` (at least 2)."""
        if not self.is_log:
            return _even(self.low, self.high, most)
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        found: Sequence[float] = ()
        for steps in STEPS:
            every = (step * 10.0**decade for decade in decades for step in steps)
            found = [value for value in every if self.low <= value <= self.high]
            if len(found) <= most:
                break
        if len(found) < 2:
            return _even(self.low, self.high, most)
        return tuple(found[:: ceil(len(found) / most)])


def _ends(values: Iterable[float]) -> tuple[float, float]:
    known = tuple(values) or (1.0,)  # an axis of nothing
    return min(known), max(known)


def _even(low: float, high: float, most: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10((high - low) / most))
    found: tuple[float, ...] = ()
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = ceil(low / step - SLACK), floor(high / step + SLACK)
        found = tuple(number * step for number in range(first, last + 1))
        if len(found) <= most:
            break
    return found
