"""From how activations are spread to the ranges that int8 gives them. None is trusted: each is tried and measured."""

from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from exporter.integer import Range
from exporter.observe import Spread

CUT_FRACTION = 1e-4
LEVELS = 128


class Calibration(StrEnum):
    """Ways to choose a range: everything seen, all but the outermost values, or least information lost."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


def ranges(spreads: Mapping[str, Spread], calibration: Calibration) -> dict[str, Range]:
    """A range for each activation that was seen."""
    return {name: METHODS[calibration](spread) for name, spread in spreads.items()}


def minmax(spread: Spread) -> Range:
    """Everything that was seen."""
    return Range(spread.low, spread.high)


def percentile(spread: Spread) -> Range:
    """All but the outermost 0.01 % of the values, half at each end."""
    shares = np.cumsum(spread.counts) / spread.counts.sum()
    edges = spread.edges
    low = edges[int(np.searchsorted(shares, CUT_FRACTION / 2, side="right"))]
    high = edges[int(np.searchsorted(shares, 1 - CUT_FRACTION / 2)) + 1]
    return Range(max(spread.low, float(low)), min(spread.high, float(high)))


def entropy(spread: Spread) -> Range:
    """The clip whose 128 levels lose least information (Kullback-Leibler divergence; Migacz, GTC 2017)."""
    half = len(spread.counts) // 2
    counts = (spread.counts[half:] + spread.counts[:half][::-1]).astype(np.float64)
    candidates = np.unique(np.linspace(LEVELS, half, 113).astype(int))
    losses = [_divergence(counts, int(bins)) for bins in candidates]
    limit = float(candidates[int(np.argmin(losses))]) / half * spread.limit
    return Range(max(spread.low, -limit), min(spread.high, limit))


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """Information lost when magnitudes beyond the first `bins` are clipped and the rest share `LEVELS` levels."""
    clipped = counts[:bins].copy()
    clipped[-1] += counts[bins:].sum()
    groups = np.arange(bins) * LEVELS // bins
    occupied = counts[:bins] > 0
    totals = np.bincount(groups, weights=counts[:bins], minlength=LEVELS)
    sharing = np.bincount(groups, weights=occupied, minlength=LEVELS)
    levels = np.where(occupied, (totals / np.maximum(sharing, 1))[groups], 0)
    if not levels.sum():
        return np.inf
    p, q = clipped / clipped.sum(), levels / levels.sum()
    present = p > 0
    return float((p[present] * np.log(p[present] / np.maximum(q[present], 1e-12))).sum())


METHODS: Mapping[Calibration, Callable[[Spread], Range]] = {
    Calibration.MINMAX: minmax,
    Calibration.PERCENTILE: percentile,
    Calibration.ENTROPY: entropy,
}
