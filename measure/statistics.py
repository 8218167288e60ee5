"""What raw samples allow one to say. Pure functions of numbers."""

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from math import exp, sqrt
from statistics import median

import numpy as np

from artifact.intervals import Interval, paired_difference

RESAMPLES = 4000
EQUIVALENT = 1.02
"""Two speeds within this factor are the same for all practical purposes (MLPerf's "materially different")."""

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % quantiles of Student's t for 1 to 15 degrees of freedom."""


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


def ratio_interval(log_ratios: Sequence[Sequence[float]], seed: int) -> Interval:
    """Speed ratio with a 95 % interval from paired logarithms, one inner sequence (its rounds) for each replicate.

    The estimate is the mean over replicates of the median over rounds. The interval is Student's t times the standard
    error of a hierarchical bootstrap (Kalibera and Jones, ISMM 2013): replicates are drawn, then rounds within each.
    Drawing n replicates of n makes that error too small by √((n-1)/n), which is put right. Percentiles would not do:
    they cannot lie outside the replicates seen, and once in eight times all of four lie on one side of the truth.
    """
    centres = [median(rounds) for rounds in log_ratios]
    estimate = exp(sum(centres) / len(centres))
    count = len(log_ratios)
    if count < 2:
        return Interval(estimate, None, None)
    random = np.random.default_rng(seed)
    drawn = random.integers(0, count, (RESAMPLES, count))
    resampled = np.empty((RESAMPLES, count))
    for replicate, rounds in enumerate(log_ratios):
        values = np.asarray(rounds)
        for column in range(count):
            hit = np.flatnonzero(drawn[:, column] == replicate)
            picks = random.integers(0, len(values), (len(hit), len(values)))
            resampled[hit, column] = np.median(values[picks], axis=1)
    quantile = _T_975[count - 2] if count - 2 < len(_T_975) else 1.96 + 2.4 / (count - 1)
    half = quantile * float(resampled.mean(axis=1).std()) * sqrt(count / (count - 1))
    return Interval(estimate, estimate * exp(-half), estimate * exp(half))


def decide(interval: Interval) -> Decision:
    """`faster` or `slower` only when the whole interval lies outside ±2 %, `equivalent` when it lies inside."""
    if interval.low is None or interval.high is None:
        return Decision.INCONCLUSIVE
    if interval.low > EQUIVALENT:
        return Decision.FASTER
    if interval.high < 1 / EQUIVALENT:
        return Decision.SLOWER
    if interval.low >= 1 / EQUIVALENT and interval.high <= EQUIVALENT:
        return Decision.EQUIVALENT
    return Decision.INCONCLUSIVE


def accuracy_interval(right: int, examples: int) -> Interval:
    """A share of right answers with its 95 % score interval (Wilson, JASA 1927)."""
    share, z = right / examples, 1.96
    centre = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2))
    return Interval(share, centre - half, centre + half)


def accuracy_difference(wins: int, losses: int, examples: int) -> Interval:
    """Difference of two accuracies on the same examples, with the 95 % interval for paired proportions.

    Agresti and Min's (Biometrics 2005): `paired_difference` where each difference is a win, a loss or nothing.
    """
    return paired_difference(wins - losses, wins + losses, examples)
