"""How well a model does, with intervals: Wilson's of the share that is right, the bootstrap's of all others."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.intervals import Estimate, accuracy_interval
from models.training import Confusion, Score, Scores

RESAMPLES = 2000
AT_ONCE = 100
SEED = 0

Floats = NDArray[np.float64]


def scores(truth: Sequence[int], answers: Sequence[int], labels: Sequence[str]) -> Scores:
    """Scores of `answers` against `truth`, both positions in `labels`, with 95 % intervals.

    The accuracy's is Wilson's, which has a width even where everything is right. All others are functions of the table
    of what was right and what was answered, so resampling the examples (Efron, Annals of Statistics 1979) is drawing
    that table from a multinomial. What has no examples or no answers scores 0. Raises `ValueError` for no example.
    """
    if not len(truth):
        raise ValueError("nothing to score")
    size = len(labels)
    confusion = np.bincount(np.asarray(truth) * size + np.asarray(answers), minlength=size * size)
    cells = np.flatnonzero(confusion)
    counts = confusion[cells]
    drawn = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), RESAMPLES)
    tables = np.vstack([counts, drawn]).astype(np.float64)
    right, answered = np.divmod(cells, size)
    support, found = (_totals(tables, side, size) for side in (right, answered))
    hits = _totals(tables[:, right == answered], right[right == answered], size)
    precision, recall = _ratio(hits, found), _ratio(hits, support)
    f1 = _ratio(2 * hits, found + support)
    every = (precision, recall, f1)
    weights = support / support.sum(axis=1, keepdims=True)
    return Scores(
        accuracy=accuracy_interval(int(hits[0].sum()), len(truth)),
        macro=_score(*(values.mean(axis=1) for values in every)),
        weighted=_score(*((values * weights).sum(axis=1) for values in every)),
        labels={name: _score(*(values[:, place] for values in every)) for place, name in enumerate(labels)},
        confusion=tuple(
            Confusion(truth=labels[row], answer=labels[column], count=int(count))
            for row, column, count in zip(right, answered, counts, strict=True)
        ),
        most_frequent=float(support[0].max() / support[0].sum()),
    )


def estimate(value: Callable[[Floats], Floats], statistics: Floats) -> Estimate:
    """A value of summed statistics of shape (examples, k), such as a metric's, with the percentile interval over
    resampled examples.

    Raises `ValueError` for no example.
    """
    count = len(statistics)
    if not count:
        raise ValueError("nothing to score")
    draw = np.random.default_rng(SEED)
    sums = [statistics.sum(axis=0, keepdims=True)]
    for start in range(0, RESAMPLES, AT_ONCE):
        times = draw.multinomial(count, np.full(count, 1 / count), min(AT_ONCE, RESAMPLES - start))
        sums.append(times @ statistics)
    return _estimate(value(np.concatenate(sums)))


def _totals(tables: Floats, side: NDArray[np.int64], size: int) -> Floats:
    """Sums of the cells that belong to each label, shape (tables, labels)."""
    totals = np.zeros((len(tables), size))
    if len(side):
        order = np.argsort(side, kind="stable")
        present, starts = np.unique(side[order], return_index=True)
        totals[:, present] = np.add.reduceat(tables[:, order], starts, axis=1)
    return totals


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(part / np.where(whole > 0, whole, 1))


def _score(precision: Floats, recall: Floats, f1: Floats) -> Score:
    return Score(precision=_estimate(precision), recall=_estimate(recall), f1=_estimate(f1))


def _estimate(values: Floats) -> Estimate:
    """The first value, and the middle 95 % of the others."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Estimate(value=float(values[0]), low=float(low), high=float(high))
