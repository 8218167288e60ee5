"""Two shares of right answers to the same examples, where it is not kept which example was answered how."""

from math import sqrt

from artifact.intervals import Interval, paired_difference
from measure.statistics import accuracy_interval


def unpaired_difference(base_right: int, later_right: int, examples: int) -> Interval:
    """How far the later share lies above the base's, with a 95 % interval as if each had examples of its own.

    Newcombe's tenth method (Statistics in Medicine 1998), from the score interval of each. Answers to the same examples
    go right and wrong together, more often than by chance, so that the true interval is narrower than this.
    """
    base, later = accuracy_interval(base_right, examples), accuracy_interval(later_right, examples)
    difference = later.estimate - base.estimate
    return Interval(
        difference,
        difference - sqrt(_below(later) ** 2 + _above(base) ** 2),
        difference + sqrt(_above(later) ** 2 + _below(base) ** 2),
    )


def difference_by_reference(base: tuple[int, int], later: tuple[int, int], examples: int) -> Interval:
    """The same from the (wins, losses) of each against one reference, whose answers were the same both times.

    Two answers can differ in being right only where one of them differs in that from the reference. So all wins and
    losses together are the most pairs that can differ, and `paired_difference` with so many is no narrower than the
    interval of the true pairs.
    """
    return paired_difference(later[0] - later[1] - base[0] + base[1], sum(base) + sum(later), examples)


def _below(share: Interval) -> float:
    return share.estimate - (share.low if share.low is not None else 0.0)


def _above(share: Interval) -> float:
    return (share.high if share.high is not None else 1.0) - share.estimate
