"""What writing a token takes besides the engine: from text to ids, choosing among the scores, and back to text."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from artifact.generate.pieces import Pieces
from artifact.generate.sampling import Sampler, Sampling
from artifact.predict.tokens import TextEncoder, open_tokenizer
from artifact.recordings import Recordings
from artifact.tokenizer import plain_tokenizer_json
from errors import UserError
from measure.records import Overhead
from measure.timing import Clock

DRAWN = Sampling(temperature=0.7, top_k=50, top_p=0.9)
"""Draws as chats usually ask for."""

TEXTS, CHOICES, HEARD = 64, 64, 8


def overhead(
    folder: Path,
    encoder: TextEncoder,
    texts: Sequence[str],
    clock: Clock = time.perf_counter,
    *,
    recordings: Recordings | None = None,
) -> Overhead:
    """Medians over the first texts of what a packed model does around its engine, with the tokenizer in `folder`; one
    that hears `recordings` reads no texts, but writes such.

    Scores are random, for as many tokens as the tokenizer has. Where a token's text is not sure before the end of all,
    telling it has no time of its own.
    """
    taken, ids = [], []
    for text in texts[:TEXTS]:
        start = clock()
        found = encoder.encode([text])[0]["input_ids"]
        spent = clock() - start
        if found:
            taken.append(spent / len(found))
            ids += found
    tokenizer = open_tokenizer(plain_tokenizer_json(folder))
    scores = np.random.default_rng(0).normal(0, 3, (CHOICES, tokenizer.get_vocab_size())).astype(np.float32)
    try:
        pieces = Pieces(tokenizer)
    except UserError:
        tell_s = None
    else:
        tell_s = _median(lambda number: pieces.push(ids[number]), len(ids), clock)
    return Overhead(
        tokenise_s=None if recordings else median(taken),
        choose_s=_choosing(Sampling(), scores, clock),
        draw_s=_choosing(DRAWN, scores, clock),
        tell_s=tell_s,
        hear_s=_median(recordings.__getitem__, min(HEARD, len(recordings)), clock) if recordings else None,
    )


def _choosing(sampling: Sampling, scores: NDArray[np.float32], clock: Clock) -> float:
    sampler = Sampler(sampling, 1)
    return _median(lambda number: sampler.choose(scores[number : number + 1], [()]), len(scores), clock)


def _median(call: Callable[[int], object], count: int, clock: Clock) -> float:
    """Median seconds of a call with each number."""
    samples = []
    for number in range(count):
        start = clock()
        call(number)
        samples.append(clock() - start)
    return median(samples)
