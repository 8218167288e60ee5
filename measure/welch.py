"""Two independent groups of numbers, each with a scatter of its own: how far apart their means are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean, variance

from measure.student import quantile, tail


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the mean of one group lies above another's: the estimate, its standard error, and the degrees of freedom
    of Student's t (Welch, Biometrika 1947; Satterthwaite, Biometrics Bulletin 1946)."""

    estimate: float
    error: float
    degrees: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        half = quantile(0.975, self.degrees) * self.error
        return self.estimate - half, self.estimate + half

    def p_above(self, bound: float) -> float:
        """One-sided p-value against "the true shift is `bound` or less": below 2.5 % where `interval` lies above it."""
        return tail(self._distance(self.estimate - bound), self.degrees)

    def p_below(self, bound: float) -> float:
        """One-sided p-value against "the true shift is `bound` or more"."""
        return tail(self._distance(bound - self.estimate), self.degrees)

    def _distance(self, beyond: float) -> float:
        """In standard errors; where nothing scatters, any distance beyond the bound is infinitely many."""
        if self.error == 0:
            return inf if beyond > 0 else -inf
        return beyond / self.error


def shift(base: Sequence[float], later: Sequence[float]) -> Shift | None:
    """How far `later` lies above `base`; `None` where one of them has fewer than two numbers, which tell no scatter."""
    if len(base) < 2 or len(later) < 2:
        return None
    of_base, of_later = variance(base) / len(base), variance(later) / len(later)
    both = of_base + of_later
    estimate = fmean(later) - fmean(base)
    if both == 0:
        return Shift(estimate, 0.0, inf)
    share = of_base / both
    degrees = 1 / (share**2 / (len(base) - 1) + (1 - share) ** 2 / (len(later) - 1))
    return Shift(estimate, sqrt(both), degrees)
