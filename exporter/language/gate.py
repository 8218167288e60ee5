"""Whether a decoder still predicts as PyTorch does: told every word, and left to itself with its cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.generate.decoder import Decoder, padded
from artifact.generate.encoder import IDS, MASK, Given
from artifact.language import Continuation, Prediction
from artifact.precision import Precision
from exporter.language.passages import Passages
from exporter.language.reference import Reference
from models.scores import Floats, estimate

RISE = 0.05
"""How much higher than the reference's a variant's perplexity may be."""

STEPS, PROMPTS, PROMPT = 64, 20, 8
"""Greedy steps after so many prompts of so many tokens."""

CACHED_STEPS = 8
NEAR_TIE = 1e-3
"""A lead of the first choice over the second, as a share of the largest logit, that rounding can turn."""

PIECE = 64
"""Tokens that are compared at once."""

EXACT: Mapping[Precision, float] = {Precision.FP32: 1e-4}
ROUNDED = 0.1
"""How far cached steps may be from one pass, as a share of the largest logit; kernels that round activations round
sums of another order elsewhere."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the reference says of each token of a batch, (tokens, vocabulary) and (tokens,).

    `total` is the logarithm of the sum of a token's exponentials, which turns logits into logarithms of shares.
    """

    logits: torch.Tensor
    total: torch.Tensor
    shares: torch.Tensor
    choice: torch.Tensor
    target: torch.Tensor
    surprise: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, target: torch.Tensor) -> Self:
        total = logits.logsumexp(dim=-1)
        shares = (logits - total[:, None]).exp_()
        return cls(logits, total, shares, logits.argmax(dim=-1), target, total - _of_targets(logits, target))


@dataclass(frozen=True, slots=True)
class Sums:
    """Statistics of each text: rows of (surprise of the variant, of the reference, divergence, agreements, tokens)."""

    rows: Floats
    error: float


def prediction(decoder: Decoder, reference: Reference) -> Prediction:
    """How a decoder predicts the passages, beside what PyTorch says of them."""
    rows, error, scale = np.zeros((len(reference.passages.rows), 5)), 0.0, 0.0
    for batch, wanted in reference:
        with torch.inference_mode():
            found = batch.picked(torch.from_numpy(decoder.every(batch.ids, batch.mask, batch.inputs)))
            tokens, farthest, largest = _compared(found, wanted, batch.target)
            error, scale = max(error, farthest), max(scale, largest)
            total = torch.zeros(len(batch.places), tokens.shape[1], dtype=torch.float64)
            rows[batch.places] = total.index_add_(0, batch.owner, tokens.double()).numpy()
    return _prediction(reference.passages, Sums(rows, error / scale))


def _compared(found: torch.Tensor, wanted: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Statistics of each token, (tokens, 5), the largest difference of a logit and the largest logit of the reference;
    `found` is overwritten.

    They are compared a piece at a time, which memory need not hold ten times over: a third quicker.
    """
    pieces = [slice(start, start + PIECE) for start in range(0, len(target), PIECE)]
    of_each = [_of_piece(found[piece], _Expected.of(wanted[piece], target[piece])) for piece in pieces]
    rows, farthest, largest = zip(*of_each, strict=True)
    return torch.cat(rows), max(farthest), max(largest)


def _of_piece(found: torch.Tensor, expected: _Expected) -> tuple[torch.Tensor, float, float]:
    """As `_compared`. The difference is infinite where a logit is no number; those surprise as much as a blind guess
    among all.

    Kullback and Leibler's divergence, the mean of log(p/q) by p, is told by the logits' differences: both logarithms
    are logits less their `total`.
    """
    agrees = found.argmax(dim=-1) == expected.choice
    total = found.logsumexp(dim=-1)
    surprise = (total - _of_targets(found, expected.target)).nan_to_num(np.log(found.shape[-1]))
    off = found.sub_(expected.logits)
    divergence = total - expected.total - torch.einsum("tv,tv->t", expected.shares, off)
    divergence.clamp_(min=0)  # it is never negative but by rounding
    rows = torch.stack([surprise, expected.surprise, divergence, agrees.float(), torch.ones_like(surprise)], dim=1)
    farthest = float(off.abs_().max().nan_to_num(torch.inf))
    return rows, farthest, float(expected.logits.abs().max())


def _of_targets(values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return values.gather(1, target[:, None])[:, 0]


def _prediction(passages: Passages, sums: Sums) -> Prediction:
    mine, theirs, divergence, agreed, tokens = sums.rows.T
    mean = [float(np.exp(part.sum() / tokens.sum())) for part in (mine, theirs)]
    return Prediction(
        inputs=passages.name,
        texts=len(sums.rows),
        tokens=int(tokens.sum()),
        perplexity=mean[0],
        reference=mean[1],
        perplexity_ratio=estimate(_rise, np.stack([mine - theirs, tokens], axis=1)),
        most_ratio=1 + RISE,
        divergence_nats=estimate(_share, np.stack([divergence, tokens], axis=1)),
        agreement_fraction=estimate(_share, np.stack([agreed, tokens], axis=1)),
        error_fraction=sums.error,
    )


def _share(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _rise(sums: Floats) -> Floats:
    return np.exp(_share(sums))


@dataclass(frozen=True, slots=True)
class Greedy:
    """Prompts of equal length and what PyTorch continues them with, int64 (prompts, tokens); an encoder reads
    `inputs`."""

    prompts: NDArray[np.int64]
    inputs: Given
    continued: NDArray[np.int64]


def greedy(model: Any, passages: Passages, context: int) -> Greedy:
    """PyTorch's own greedy continuation."""
    places = range(min(PROMPTS, len(passages.rows)))
    length = passages.told if passages.read else min(PROMPT, min(map(len, passages.rows)))
    prompts = np.array([passages.rows[place][:length] for place in places])
    inputs = passages.inputs(places)
    return Greedy(prompts, inputs, generated(model, prompts, min(STEPS, context - length), inputs)[:, length:])


def generated(model: Any, prompts: NDArray[np.int64], steps: int, inputs: Given) -> NDArray[np.int64]:
    """Prompts of equal length and so many tokens behind each, by transformers' greedy `generate` without any setting of
    the checkpoint's or its class's own, so that it does not stop before the last step; int64 (prompts, length +
    steps)."""
    from transformers import GenerationConfig, GenerationMixin

    own, start = model.generation_config, int(prompts[0, 0])
    config = GenerationConfig(do_sample=False, max_new_tokens=steps, pad_token_id=0, decoder_start_token_id=start)
    names = ("decoder_input_ids", "decoder_attention_mask") if inputs else (IDS, MASK)
    given = {**inputs, names[0]: prompts, names[1]: np.ones_like(prompts)}
    model.generation_config = GenerationConfig()
    try:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in given.items()}
            return np.asarray(GenerationMixin.generate(model, **tensors, generation_config=config).numpy())
    finally:
        model.generation_config = own


def continuation(decoder: Decoder, passages: Passages, wanted: Greedy) -> Continuation:
    """What a decoder does with its cache, step by step."""
    rows, steps = wanted.continued.shape
    length = wanted.prompts.shape[1]
    decoding = decoder.begin(rows, length + steps, wanted.inputs)
    parted, behind, largest = np.zeros((rows, steps), dtype=bool), np.zeros((rows, steps)), 0.0
    for step, said in enumerate(wanted.continued.T):  # told what PyTorch said: so they part but once
        previous = wanted.continued[:, step - 1]
        found = decoding.step(previous) if step else decoding.prompt(wanted.prompts.tolist())
        parted[:, step] = found.argmax(axis=-1) != said
        behind[:, step] = found.max(axis=-1) - found[np.arange(rows), said]
        largest = max(largest, float(np.abs(found).max()))
    ties = behind <= NEAR_TIE * largest
    bad = (parted & ~ties).any(axis=1)
    return Continuation(
        cached_error_fraction=_cached_error(decoder, passages),
        prompts=rows,
        steps=steps,
        equal=int((~parted.any(axis=1)).sum()),
        near_ties=int((parted.any(axis=1) & ~bad).sum()),
    )


def _cached_error(decoder: Decoder, passages: Passages) -> float:
    """Largest difference between steps with the cache and one pass over all, as a share of the largest logit."""
    places = sorted(range(len(passages.rows)), key=lambda place: len(passages.rows[place]))[-3:]
    longest, inputs = [passages.rows[place] for place in places], passages.inputs(places)
    steps = min(CACHED_STEPS, len(longest[0]) - 1)
    starts = [1, *(max(1, (len(row) - steps) // part) for row, part in zip(longest[1:], (2, 1), strict=False))]
    if inputs:
        starts = [1] * len(longest)  # what an encoder has read is answered from one token on
    rows = [row[: start + steps] for row, start in zip(longest, starts, strict=False)]
    whole = decoder.every(*padded(rows), inputs)
    decoding = decoder.begin(len(rows), max(map(len, rows)), inputs)
    found = [decoding.prompt([row[:start] for row, start in zip(rows, starts, strict=False)])]
    for step in range(steps):
        tokens = np.array([row[start + step] for row, start in zip(rows, starts, strict=False)])
        found.append(decoding.step(tokens))
    error = 0.0
    for number, start in enumerate(starts[: len(rows)]):
        expected = whole[number, start - 1 : start + steps]
        difference = np.abs(np.stack([logits[number] for logits in found]) - expected)
        error = max(error, float(np.nan_to_num(difference, nan=np.inf).max()))
    return error / float(np.abs(whole).max())


def reasons(precision: Precision, predicted: Prediction, continued: Continuation) -> tuple[str, ...]:
    """Why a variant fails; empty when it passes."""
    found = []
    if not predicted.perplexity_ratio.value <= predicted.most_ratio:
        ratio, most = predicted.perplexity_ratio.value, predicted.most_ratio
        found.append(f"its perplexity is {ratio:.3f} times PyTorch's, at most {most}")
    most = EXACT.get(precision, ROUNDED)
    if not continued.cached_error_fraction <= most:
        found.append(f"steps with the cache differ from one pass by {continued.cached_error_fraction:.1e}")
    if precision in EXACT:
        if not predicted.error_fraction <= most:
            found.append(f"a logit differs from PyTorch's by {predicted.error_fraction:.1e} of the largest")
        parted = continued.prompts - continued.equal - continued.near_ties
        if parted:
            found.append(f"{parted} of {continued.prompts} prompts are continued by other tokens")
    return tuple(found)
