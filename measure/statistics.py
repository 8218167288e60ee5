"""What raw samples allow one to say. Pure functions of numbers."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp, log, sqrt
from statistics import fmean, median, stdev
from typing import Self

from artifact.intervals import Interval, paired_difference
from measure.multiple import holm
from measure.student import quantile, tail

EQUIVALENT = 1.02
"""Two speeds within this factor are the same for all practical purposes (MLPerf's "materially different")."""

LEVEL, CLEAR = 0.95, 0.999
"""How sure an interval and a verdict are, and how sure it must be for measuring to stop early."""

MOST_REPLICATES = 1000
"""Nobody measures more processes than that to settle a pair."""


class Decision(StrEnum):
    """What an interval on a speed ratio says."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


def pass_seconds(samples_s: Sequence[float], shapes: Sequence[tuple[int, int]]) -> float:
    """Seconds of one pass over a workload: for each batch shape the median of its calls, times how often it occurs.

    `samples_s` holds whole passes one after another. Raises `ValueError` if they are not whole.
    """
    if not samples_s or len(samples_s) % len(shapes):
        raise ValueError(f"{len(samples_s)} samples are not whole passes over {len(shapes)} batches")
    by_shape: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for position, sample in enumerate(samples_s):
        by_shape[shapes[position % len(shapes)]].append(sample)
    return sum(median(by_shape[shape]) for shape in shapes)


@dataclass(frozen=True, slots=True)
class LogRatio:
    """A speed ratio on the scale of logarithms: its estimate, the standard error, and from how many replicates.

    `error` is `None` for a single replicate.
    """

    centre: float
    error: float | None
    replicates: int

    @classmethod
    def of(cls, centres: Sequence[float]) -> Self:
        """From one logarithm for each replicate.

        The process is the unit of replication: rounds of one process share its memory layout and its luck, so however
        many there are, they count as one figure, such as their median (Kalibera and Jones, *Rigorous Benchmarking in
        Reasonable Time*, ISMM 2013; their random-effects model with the highest level replicated). Scatter within
        processes reaches the standard error through those figures, once.
        """
        error = stdev(centres) / sqrt(len(centres)) if len(centres) > 1 else None
        return cls(fmean(centres), error, len(centres))

    def interval(self, level: float = LEVEL) -> Interval:
        """The ratio with its interval (95 % unless told), Student's; without ends for a single replicate."""
        if self.error is None:
            return Interval(exp(self.centre), None, None)
        half = quantile((1 + level) / 2, self.replicates - 1) * self.error
        return Interval(exp(self.centre), exp(self.centre - half), exp(self.centre + half))

    @property
    def p_beyond(self) -> float:
        """How likely so clear a difference is if there is none of more than ±2 % (two-sided p-value)."""
        distance = abs(self.centre) - log(EQUIVALENT)
        if self.error is None or distance <= 0:
            return 1.0
        return 2 * tail(distance / self.error, self.replicates - 1) if self.error else 0.0

    def more_replicates(self) -> int | None:
        """How many more processes would decide it if they scatter as these do: 0 if it is decided, `None` if more
        than a thousand or if it cannot be said."""
        if self.error is None:
            return None
        scatter, distance = self.error * sqrt(self.replicates), abs(abs(self.centre) - log(EQUIVALENT))

        def decides(count: int) -> bool:
            return quantile((1 + LEVEL) / 2, count - 1) * scatter / sqrt(count) < distance

        if not decides(MOST_REPLICATES):
            return None
        return bisect_left(range(self.replicates, MOST_REPLICATES), True, key=decides)


def is_clear(centres: Sequence[float]) -> bool:
    """Whether the 99.9 % interval lies wholly beyond ±2 % or within. `centres` are as `LogRatio.of` takes them.

    Looking again and again, and stopping as soon as a 95 % interval pleases, would be wrong far more often than one
    time in twenty. With looks this strict the verdict keeps its level (Peto et al., British Journal of Cancer 1976,
    after Haybittle 1971).
    """
    interval = LogRatio.of(centres).interval(CLEAR)
    return _is_beyond(interval) or _is_within(interval)


def is_settled(centres: Sequence[float]) -> bool:
    """Whether nobody need measure on: what came before the last replicate was clear already.

    Measuring stops where the scatter happens to look small; if the last replicate had a say in whether it is the last,
    95 % intervals would cover 92 to 94 %.
    """
    return len(centres) > 1 and is_clear(centres[:-1])


def decide(ratios: Sequence[LogRatio]) -> tuple[Decision, ...]:
    """What each of several ratios says, when all of them are looked at together.

    `faster` or `slower`: beyond ±2 % with 95 % certainty, by Holm's procedure over all of them, so that the chance of
    even one false call stays below 5 % however many there are. `equivalent`: the whole 95 % interval lies within ±2 %.
    """
    adjusted = holm([ratio.p_beyond for ratio in ratios])
    return tuple(_decision(ratio, p_beyond) for ratio, p_beyond in zip(ratios, adjusted, strict=True))


def _decision(ratio: LogRatio, p_beyond: float) -> Decision:
    if p_beyond < 1 - LEVEL:
        return Decision.FASTER if ratio.centre > 0 else Decision.SLOWER
    return Decision.EQUIVALENT if _is_within(ratio.interval()) else Decision.INCONCLUSIVE


def _is_within(interval: Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return interval.low >= 1 / EQUIVALENT and interval.high <= EQUIVALENT


def _is_beyond(interval: Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return interval.low > EQUIVALENT or interval.high < 1 / EQUIVALENT


def accuracy_difference(wins: int, losses: int, examples: int) -> Interval:
    """Difference of two accuracies on the same examples, with the 95 % interval for paired proportions.

    Agresti and Min's (Biometrics 2005): `paired_difference` where each difference is a win, a loss or nothing.
    """
    return paired_difference(wins - losses, wins + losses, examples)
