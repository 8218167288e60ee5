"""An estimate with its interval, that of a share, and that of paired differences."""

from dataclasses import dataclass
from math import sqrt

import msgspec


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval; `None` ends where there are too few replicates for one."""

    estimate: float
    low: float | None
    high: float | None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def accuracy_interval(right: int, examples: int) -> Estimate:
    """A share of right answers with its 95 % score interval (Wilson, JASA 1927). Raises `ZeroDivisionError` for no
    example."""
    share, z = right / examples, 1.96
    centre = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2))
    return Estimate(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def paired_difference(total: float, squares: float, examples: int, largest: float = 1.0) -> Interval:
    """Mean of paired differences with its 95 % interval, from their sum and the sum of their squares.

    Wald's interval with two pseudo-pairs added, each half a win and half a loss (Agresti and Min, Biometrics 2005), so
    that it has a width even when no pair differs. Differences are those of one example's worth, in -1 to 1; wins and
    losses that are at most `largest` make pseudo-pairs of that size.
    """
    padded = examples + 2
    centre = total / padded
    half = 1.96 * sqrt(max(0.0, squares + largest**2 - total**2 / padded)) / padded
    return Interval(total / examples, centre - half, centre + half)
