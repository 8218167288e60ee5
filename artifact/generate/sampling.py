"""Choosing the next token of each row from logits, by the rules of transformers."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from errors import GateFailed, UserError

LOWEST_TEMPERATURE = 1e-3
"""Below it nothing but the likeliest token has a chance, and dividing by it can leave the range of float32."""
STRETCH = 256


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. The defaults choose the likeliest token each time.

    `temperature` 0 is greedy, and then `top_k`, `top_p` and `min_p` do nothing, as with `do_sample=False` in
    transformers. `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 are off. Raises `UserError` for a value
    that cannot be.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not LOWEST_TEMPERATURE <= self.temperature < math.inf:
            raise UserError(
                f"--temperature is {self.temperature}, not 0 and not a number from {LOWEST_TEMPERATURE} on",
                "give 0 for the likeliest token each time, or a number such as 0.7",
            )
        if self.top_k < 0:
            raise UserError(f"--top-k is {self.top_k}, below 0", "give 0 for all tokens, or a number such as 50")
        if not 0 < self.top_p <= 1:
            raise UserError(
                f"--top-p is {self.top_p}, not above 0 and up to 1",
                "give 1 for all tokens, or a number such as 0.9; for the likeliest token each time, --temperature 0",
            )
        if not 0 <= self.min_p <= 1:
            raise UserError(f"--min-p is {self.min_p}, not 0 to 1", "give 0 for all tokens, or a number such as 0.05")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(
                f"--repetition-penalty is {self.repetition_penalty}, not a number above 0",
                "give 1 for none, or a number such as 1.1",
            )
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}, below 0", "give a number from 0 on")


class Sampler:
    """Chooses tokens for rows, each of which has random numbers of its own.

    They follow from the seed and the row's number alone: a row's text does not depend on what else is in its batch.
    `numbers` are the rows' numbers, 0, 1, … unless given; give those of the whole data where a batch is a part of it.
    """

    def __init__(self, sampling: Sampling, rows: int, *, numbers: Sequence[int] | None = None) -> None:
        numbers = range(rows) if numbers is None else numbers
        if len(numbers) != rows:
            raise ValueError(f"{len(numbers)} numbers for {rows} rows")
        self.sampling = sampling
        self._random = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(sampling.seed, spawn_key=(number,))))
            for number in numbers
        ]

    def choose(self, logits: NDArray[np.float32], histories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """The next token of each row, int64 of shape (rows,), from logits of shape (rows, vocabulary).

        A history is the row's prompt and what was generated so far, without padding; only a repetition penalty reads
        it. Greedy takes the lowest id among equals. Raises `GateFailed` for NaN, and in drawing also for an infinite
        largest logit.
        """
        if logits.ndim != 2 or not len(logits) == len(histories) == len(self._random):
            raise ValueError(f"logits {logits.shape} and {len(histories)} histories for {len(self._random)} rows")
        chosen = np.empty(len(logits), dtype=np.int64)
        for row, (scores, history) in enumerate(zip(logits, histories, strict=True)):
            chosen[row] = self._choose(row, scores, history)
        return chosen

    def _choose(self, row: int, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        if self.sampling.temperature == 0:
            scores = penalised(logits, history, self.sampling.repetition_penalty)
            best = int(scores.argmax())  # numpy's argmax is the first NaN where there is one
            if np.isnan(scores[best]):
                raise GateFailed(f"the model gives NaN for row {row}", "try another precision")
            return best
        tokens, scores = candidates(logits, history, self.sampling)
        top = scores.max()
        if not np.isfinite(top):
            raise GateFailed(
                f"the model gives NaN or infinite logits for row {row}, from which nothing can be drawn",
                "try another precision",
            )
        return int(tokens[_drawn(np.exp(scores - top), self._random[row].random())])


def candidates(
    logits: NDArray[np.float32], history: Sequence[int], sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The tokens one of which is drawn, int64 of shape (kept,) in rising order, and their scores, float32.

    `logits` has the shape (vocabulary,). The steps and their order are those of `generate` in transformers 5.23:
    repetition penalty, temperature, top-k, top-p, min-p, each on what the one before left. Where the highest score is
    NaN or infinite nothing is filtered.
    """
    scores = penalised(logits, history, sampling.repetition_penalty)
    with np.errstate(over="ignore"):  # an infinite highest score is refused by whoever draws
        scores = scores / np.float32(sampling.temperature)
    tokens: NDArray[np.int64] | None = None
    if np.isfinite(scores.max()):
        for keep in _filters(sampling, len(scores)):
            places = keep(scores)
            tokens, scores = places if tokens is None else tokens[places], scores[places]
    return _every_token(len(scores)) if tokens is None else tokens, scores


@lru_cache(maxsize=4)
def _every_token(vocabulary: int) -> NDArray[np.int64]:
    tokens = np.arange(vocabulary)
    tokens.flags.writeable = False
    return tokens


def _filters(sampling: Sampling, vocabulary: int) -> Iterator[Callable[[NDArray[np.float32]], NDArray[np.int64]]]:
    """What is asked for, in order: each gives the places, in rising order, of the scores that remain."""
    if 0 < sampling.top_k < vocabulary:
        yield lambda scores: _of_top_k(scores, sampling.top_k)
    if sampling.top_p < 1:
        yield lambda scores: _of_top_p(scores, sampling.top_p)
    if sampling.min_p > 0:
        yield lambda scores: _of_min_p(scores, sampling.min_p)


def penalised(logits: NDArray[np.float32], history: Sequence[int], penalty: float) -> NDArray[np.float32]:
    """Logits with those of the tokens in `history` divided by `penalty` where positive, else multiplied by it.

    A token counts once, however often it stands there; ids beyond the vocabulary are passed over. It is the rule of
    CTRL (Keskar et al., 2019) as `RepetitionPenaltyLogitsProcessor` has it. Without a penalty the logits themselves
    come back, not a copy.
    """
    if penalty == 1 or len(history) == 0:
        return logits
    seen = np.asarray(history, dtype=np.int64)
    seen = seen[seen < len(logits)]
    old, factor = logits[seen], np.float32(penalty)
    scores = logits.copy()
    with np.errstate(over="ignore"):
        scores[seen] = np.where(old < 0, old * factor, old / factor)
    return scores


def _of_top_k(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Places of the `top_k` highest scores, and of all that equal the last of them.

    The scores are first looked at in columns: with as many columns as are wanted, that many scores are at least as
    high as the `top_k`-th highest of the columns' peaks. What lies below need not be partitioned.
    """
    columns = max(512, 8 * top_k)
    rows = len(scores) // columns
    if rows < 4:
        return np.flatnonzero(scores >= _highest(scores, top_k))
    peaks = scores[: rows * columns].reshape(rows, columns).max(axis=0)
    places = np.flatnonzero(scores >= _highest(peaks, top_k))
    high = scores[places]
    return places[high >= _highest(high, top_k)]


def _highest(scores: NDArray[np.float32], rank: int) -> np.float32:
    """The `rank`-th highest score, from 1 on."""
    return np.float32(np.partition(scores, len(scores) - rank)[len(scores) - rank])


def _of_top_p(scores: NDArray[np.float32], top_p: float) -> NDArray[np.int64]:
    """Places of the highest scores that remain when the lowest, together at most 1 - `top_p` likely, are left out.

    The highest always remains. Of equal scores at the edge those with the highest ids remain; transformers does not
    say which (`torch.sort` is not stable). Sums and the comparison are in float32 like there. What is less likely than
    its share of 1 - `top_p` is left out before the sorting, for all of it together is less likely than that.
    """
    chances = _softmax(scores)
    limit = np.float32(1 - top_p)
    places = np.flatnonzero(chances >= limit / np.float32(len(scores)))
    high, rising = scores[places], np.sort(chances[places])
    left_out = chances.sum(dtype=np.float64) - rising.sum(dtype=np.float64)
    sums = (left_out + np.cumsum(rising, dtype=np.float64)).astype(np.float32)
    remaining = len(places) - min(int(np.searchsorted(sums, limit, side="right")), len(places) - 1)
    edge = _highest(high, remaining)
    kept = high > edge
    equal = np.flatnonzero(high == edge)
    kept[equal[len(equal) - (remaining - np.count_nonzero(kept)) :]] = True
    return places[kept]


def _of_min_p(scores: NDArray[np.float32], min_p: float) -> NDArray[np.int64]:
    """Places of the scores that are at least `min_p` times as likely as the likeliest."""
    chances = _softmax(scores)
    return np.flatnonzero(chances >= np.float32(min_p) * chances.max())


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    chances: NDArray[np.float32] = scores - scores.max()
    np.exp(chances, out=chances)
    chances /= chances.sum()
    return chances


def _drawn(weights: NDArray[np.float32], uniform: float) -> int:
    """The place that a number of [0, 1) falls on when each has a stretch as long as its weight, in order.

    Adding up one by one takes the longest, so stretches of many places are looked at first. A weight of zero has a
    stretch without a point in it; sums are kept from being met by rounding.
    """
    whole = len(weights) // STRETCH * STRETCH
    stretches = weights[:whole].reshape(-1, STRETCH).sum(axis=1, dtype=np.float64)
    sums = np.cumsum(np.append(stretches, weights[whole:].sum(dtype=np.float64)))
    aim = min(uniform * sums[-1], np.nextafter(sums[-1], 0))
    stretch = int(np.searchsorted(sums, aim, side="right"))
    start = stretch * STRETCH
    steps = np.cumsum(weights[start : start + STRETCH], dtype=np.float64)
    left = min(aim - (sums[stretch - 1] if stretch else 0.0), np.nextafter(steps[-1], 0))
    return start + int(np.searchsorted(steps, left, side="right"))
