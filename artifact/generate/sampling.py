"""Which token comes next, drawn from logits without torch, as transformers' own processors would have it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import Logits
from errors import UserError

Floats = NDArray[np.float64]

COUNTS = (256, 4096)
"""How many of the likeliest tokens are looked at first for `--top-p`; sorting a whole vocabulary takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn. At `temperature` 0 the likeliest is taken.

    `top_k` (0: all) keeps so many of the likeliest, `top_p` those that together have this probability (Holtzman et al.,
    ICLR 2020), `min_p` those with this share of the likeliest one's; `repetition_penalty` makes tokens that occurred
    less likely (Keskar et al., 2019). Raises `UserError` for values without a meaning.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("--temperature", self.temperature, 0 <= self.temperature < np.inf, "0 for the likeliest token, or more"),
            ("--top-k", self.top_k, self.top_k >= 0, "a number of tokens, or 0 for all"),
            ("--top-p", self.top_p, 0 < self.top_p <= 1, "a probability above 0, at most 1"),
            ("--min-p", self.min_p, 0 <= self.min_p <= 1, "a share from 0 to 1"),
            (
                "--repetition-penalty",
                self.repetition_penalty,
                0 < self.repetition_penalty < np.inf,
                "above 0; 1 is none",
            ),
            ("--seed", self.seed, self.seed >= 0, "a whole number from 0"),
        )
        for flag, value, is_right, wanted in checks:
            if not is_right:
                raise UserError(f"{flag} is {value}", f"give {wanted}")


class Sampler:
    """Draws for some rows, each by a generator of its own: a row's tokens do not depend on what is in its batch."""

    def __init__(self, sampling: Sampling, rows: int) -> None:
        self._sampling = sampling
        self._random = [np.random.default_rng([sampling.seed, row]) for row in range(rows)]

    def choose(self, logits: Logits, histories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """The next token of each row, int64 (rows), from logits of (rows, vocabulary) and all tokens before.

        Raises `UserError` for logits that are no numbers.
        """
        if np.isnan(logits).any():
            raise UserError("the model's logits are no numbers", "verify the artifact, or take another precision")
        chosen = [self._one(row, logits[row], history) for row, history in enumerate(histories)]
        return np.array(chosen, dtype=np.int64)

    def _one(self, row: int, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        scores = penalized(logits, history, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return int(scores.argmax())
        tokens, shares = kept(scores, self._sampling)
        place = np.searchsorted(np.cumsum(shares), self._random[row].random() * shares.sum(), side="right")
        return int(tokens[min(int(place), len(tokens) - 1)])


def penalized(logits: NDArray[np.float32], history: Sequence[int], penalty: float) -> NDArray[np.float32]:
    """Logits with those of tokens that occurred divided by the penalty where they are positive, else multiplied."""
    if penalty == 1 or not history:
        return logits
    occurred = np.unique(np.asarray(history, dtype=np.int64))
    scores = logits.copy()
    found = scores[occurred]
    scores[occurred] = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
    return scores


def kept(scores: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.int64], Floats]:
    """The tokens that may be drawn, the likeliest last, and their probabilities, float64, which sum up to 1."""
    scaled = scores.astype(np.float64) / sampling.temperature
    tokens = _likeliest(scaled, sampling)
    tokens = tokens[np.argsort(scaled[tokens], kind="stable")]
    shares = np.exp(scaled[tokens] - scaled[tokens[-1]])
    shares /= (
        shares.sum() if sampling.top_k or len(tokens) == len(scaled) else np.exp(scaled - scaled[tokens[-1]]).sum()
    )
    if sampling.top_p < 1:
        before = shares.sum() - np.cumsum(shares)  # the probability of what is likelier
        inside = before < sampling.top_p
        inside[-1] = True
        tokens, shares = tokens[inside], shares[inside]
        shares = shares / shares.sum()
    if sampling.min_p > 0:
        inside = shares >= sampling.min_p * shares[-1]
        tokens, shares = tokens[inside], shares[inside]
    return tokens, shares / shares.sum()


def _likeliest(scaled: Floats, sampling: Sampling) -> NDArray[np.int64]:
    """Tokens among which all that may be drawn are, in no order; those as likely as the last of `top_k` count."""
    size = len(scaled)
    if 0 < sampling.top_k < size:
        least = np.partition(scaled, size - sampling.top_k)[size - sampling.top_k]
        return np.flatnonzero(scaled >= least)
    if sampling.top_p < 1:
        highest = scaled.max()
        whole = np.exp(scaled - highest).sum()
        for count in COUNTS:
            if count >= size:
                break
            first = np.argpartition(scaled, size - count)[size - count :]
            if np.exp(scaled[first] - highest).sum() >= sampling.top_p * whole:
                return first
    return np.arange(size)
