"""Two shares of right answers to the same examples, where it is not kept which example was answered how."""

from math import hypot

import numpy as np
from numpy.typing import NDArray

from artifact.intervals import Interval, accuracy_interval, paired_difference
from measure.records import Quality, TextGains


def unpaired_difference(base_right: int, later_right: int, examples: int) -> Interval:
    """How far the later share lies above the base's, with a 95 % interval as if each had examples of its own.

    Newcombe's tenth method (Statistics in Medicine 1998), from the score interval of each. Answers to the same examples
    go right and wrong together, more often than by chance, so that the true interval is narrower than this.
    """
    base, later = accuracy_interval(base_right, examples), accuracy_interval(later_right, examples)
    difference = later.value - base.value
    return Interval(
        difference,
        difference - hypot(later.value - later.low, base.high - base.value),
        difference + hypot(later.high - later.value, base.value - base.low),
    )


def difference_by_reference(base: Quality, later: Quality) -> Interval:
    """The same from what each wins and loses against one reference, whose answers were the same both times.

    Two answers can differ in being right only where one of them differs in that from the reference. So all wins and
    losses together are the most pairs that can differ, and `paired_difference` with so many is no narrower than the
    interval of the true pairs. Where whole texts gain and lose, squares of differences are at most twice those of both
    together, as (a - b)² ≤ 2a² + 2b².
    """
    total, examples = later.wins - later.losses - base.wins + base.losses, base.examples
    if (one := base.by_text) and (other := later.by_text):
        largest = min(1.0, one.largest + other.largest)
        return paired_difference(one.texts * total / examples, 2 * (one.squares + other.squares), one.texts, largest)
    return paired_difference(total, base.wins + base.losses + later.wins + later.losses, examples)


def gains_of_texts(gains: NDArray[np.int64], decisions: NDArray[np.int64]) -> TextGains:
    """What `paired_difference` takes where decisions of one text go right and wrong together, and each text is one
    example.

    `gains` are 1, 0 or -1 for each decision, and `decisions` how many each text has, one after another and none without
    any. The mean of all decisions is a ratio of two sums over texts; a text's influence on it is its residual, in units
    of a text of mean size (Cochran, Sampling Techniques, 1977, section 6.4). Where no text gains or loses anything, it
    might still be all of it: the largest gain is 1 then.
    """
    mean, size = gains.sum() / len(gains), decisions.mean()
    found = np.add.reduceat(gains, np.cumsum(decisions) - decisions)
    influences = mean + (found - mean * decisions) / size
    largest = float(np.abs(found).max() / size)
    return TextGains(
        texts=len(decisions), squares=float((influences**2).sum()), largest=min(1.0, largest) if largest else 1.0
    )
