"""Two shares of right answers to the same examples, where it is not kept which example was answered how."""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from artifact.intervals import Interval, paired_difference
from measure.records import Quality
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


def difference_by_reference(base: Quality, later: Quality) -> Interval:
    """The same from what each wins and loses against one reference, whose answers were the same both times.

    Two answers can differ in being right only where one of them differs in that from the reference. So all wins and
    losses together are the most pairs that can differ, and `paired_difference` with so many is no narrower than the
    interval of the true pairs. Where whole texts gain and lose, a difference scatters at most twice as much as both
    together, as (a - b)² ≤ 2a² + 2b².
    """
    gains = [score.wins - score.losses for score in (base, later)]
    total, examples = gains[1] - gains[0], base.examples
    squares = float(base.wins + base.losses + later.wins + later.losses)
    if base.squares is not None and later.squares is not None:
        padded = examples + 2
        apart = base.squares + later.squares - sum(gain**2 for gain in gains) / padded
        squares = 2 * apart + total**2 / padded
    return paired_difference(total, squares, examples)


def squares_of_texts(gains: NDArray[np.int64], texts: Sequence[int]) -> float | None:
    """What `paired_difference` takes as the sum of squares where decisions of one text go right and wrong together.

    `gains` are 1, 0 or -1 for each decision, and `texts` how many decisions each text has, one after another. A mean of
    all decisions is a ratio of two sums over texts, and its variance is that of the texts' residuals (Cochran, Sampling
    Techniques, 1977, section 6.4), times k / (k - 1) for k texts. `None` for fewer than two texts.
    """
    sizes = np.asarray([size for size in texts if size])
    if len(sizes) < 2:
        return None
    total, decisions = float(gains.sum()), len(gains)
    residuals = np.add.reduceat(gains, np.cumsum(sizes) - sizes) - total / decisions * sizes
    scatter = float((residuals**2).sum()) * len(sizes) / (len(sizes) - 1)
    return scatter + total**2 / (decisions + 2)


def _below(share: Interval) -> float:
    return share.estimate - (share.low if share.low is not None else 0.0)


def _above(share: Interval) -> float:
    return (share.high if share.high is not None else 1.0) - share.estimate
