"""How far an ONNX graph's answers are from PyTorch's: the first gate, on real texts and on a grid of shapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.variant import Parity

Batch = Mapping[str, NDArray[np.int64]]
Run = Callable[[Batch], NDArray[np.float32]]
"""From a batch to logits of shape (batch, labels)."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a variant may differ by: errors as a share of the largest reference logit, the others as floors."""

    max_error_fraction: float | None
    agreement_fraction: float
    cosine: float


TOLERANCES: Mapping[Precision, Tolerance] = {
    Precision.FP32: Tolerance(max_error_fraction=1e-4, agreement_fraction=1.0, cosine=0.999999),
    Precision.INT8_DYNAMIC: Tolerance(max_error_fraction=None, agreement_fraction=0.95, cosine=0.98),
}
"""fp32 must be the same function up to rounding; a quantised one must be recognisably the same model here, and is
judged by its accuracy when it is measured."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswers:
    """PyTorch's logits: for the real texts in batches, and for each shape of the grid."""

    batches: tuple[Batch, ...]
    logits: NDArray[np.float32]
    shapes: tuple[tuple[int, int], ...]
    shape_batches: tuple[Batch, ...]
    shape_logits: tuple[NDArray[np.float32], ...]


def shape_grid(longest: int) -> tuple[tuple[int, int], ...]:
    """Batch × sequence pairs that prove both axes dynamic: ones, odd sizes, and the model's maximum."""
    return tuple(dict.fromkeys((rows, min(length, longest)) for rows, length in ((1, 1), (1, 7), (3, 5), (2, longest))))


def shape_batch(names: Sequence[str], shape: tuple[int, int], vocabulary: int, seed: int) -> Batch:
    """Random ids of one shape; every row but the first is padded at its end when there is room."""
    random = np.random.default_rng(seed)
    _, length = shape
    mask = np.ones(shape, dtype=np.int64)
    mask[1:, max(1, length - 2) :] = 0
    known = {
        "input_ids": random.integers(1, vocabulary, shape) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros(shape, dtype=np.int64),
    }
    return {name: known[name] for name in names}


def reference_answers(
    run: Run, batches: Sequence[Batch], names: Sequence[str], vocabulary: int, longest: int
) -> ReferenceAnswers:
    """Run the reference over the real batches and the shape grid."""
    shapes = shape_grid(longest)
    grid = tuple(shape_batch(names, shape, vocabulary, seed) for seed, shape in enumerate(shapes))
    return ReferenceAnswers(
        batches=tuple(batches),
        logits=np.concatenate([run(batch) for batch in batches]),
        shapes=shapes,
        shape_batches=grid,
        shape_logits=tuple(run(batch) for batch in grid),
    )


def check_parity(run: Run, reference: ReferenceAnswers, precision: Precision) -> Parity:
    """Run a variant over what the reference ran, and compare.

    NaN never passes. A batch that the graph cannot run, or answers in another shape, is a failure with its reason, not
    an exception.
    """
    tolerance = TOLERANCES[precision]
    expected = reference.logits.astype(np.float64)
    scale = float(np.abs(expected).max())
    sizes = [len(next(iter(batch.values()))) for batch in reference.batches]
    parts = np.split(expected, np.cumsum(sizes)[:-1])
    tried = [_try(run, batch, part) for batch, part in zip(reference.batches, parts, strict=True)]
    reasons = [f"a batch of the texts {reason}" for reason in dict.fromkeys(reason for _, reason in tried if reason)]
    actual = np.concatenate([answer for answer, _ in tried])
    ran = []
    shapes_error = 0.0
    for shape, batch, logits in zip(reference.shapes, reference.shape_batches, reference.shape_logits, strict=True):
        answer, reason = _try(run, batch, logits)
        if reason:
            reasons.append(f"shape {shape[0]}×{shape[1]} {reason}")
            continue
        ran.append(shape)
        shapes_error = max(shapes_error, float(np.abs(answer - logits).max()))
    errors = np.nan_to_num(np.abs(actual - expected), nan=np.finfo(np.float64).max)
    max_error = float(errors.max())
    flipped = np.flatnonzero(actual.argmax(-1) != expected.argmax(-1))
    ranked = np.sort(expected, axis=-1)
    margins = ranked[:, -1] - ranked[:, -2] if expected.shape[-1] > 1 else np.full(len(expected), np.inf)
    agreement = 1 - len(flipped) / len(expected)
    cosine = _cosine(actual, expected)
    if (
        tolerance.max_error_fraction is not None
        and not max(max_error, shapes_error) <= tolerance.max_error_fraction * scale
    ):
        reasons.append(
            f"largest error {max(max_error, shapes_error):.3g} is above {tolerance.max_error_fraction:g} of the "
            f"scale {scale:.3g}"
        )
    allowed = ceil(round((1 - tolerance.agreement_fraction) * len(expected), 6))
    if len(flipped) > allowed:
        reasons.append(f"{len(flipped)} of {len(expected)} labels differ (allowed: {allowed})")
    if not cosine >= tolerance.cosine:
        reasons.append(f"cosine {cosine:.6f} is below {tolerance.cosine}")
    return Parity(
        texts=len(expected),
        scale=scale,
        max_error=max_error,
        p99_error=float(np.quantile(errors, 0.99)),
        cosine=cosine,
        agreement_fraction=agreement,
        flips=len(flipped),
        flip_margins=tuple(float(margins[row]) for row in flipped[:20]),
        shapes=tuple(ran),
        shapes_max_error=shapes_error,
        passed=not reasons,
        reasons=tuple(reasons),
    )


def _try(run: Run, batch: Batch, expected: NDArray[Any]) -> tuple[NDArray[np.float64], str]:
    """The answer to one batch (NaN where there is none to compare), and what is wrong with it."""
    nothing = np.full(expected.shape, np.nan)
    try:
        answer = run(batch).astype(np.float64)
    except Exception as error:  # whatever the engine raises, this batch does not run
        return nothing, f"does not run: {error}"
    if answer.shape != expected.shape:
        return nothing, f"gives the shape {answer.shape}, not {expected.shape}"
    return answer, "" if np.isfinite(answer).all() else "gives values that are not finite"


def _cosine(actual: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Cosine of the two sets of logits as one long vector; 0 where it is not defined."""
    actual = np.nan_to_num(actual, posinf=0, neginf=0)
    norms = float(np.linalg.norm(actual) * np.linalg.norm(expected))
    return float((actual * expected).sum() / norms) if norms else 0.0
