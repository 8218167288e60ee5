"""How good a candidate's answers are, against what is right and against the reference."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from measure.proportions import gains_of_texts
from measure.records import Quality
from measure.reference import Reference

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

MARGINS = 20


class Assess(Protocol):
    """How answers are compared with the reference's and with what is right."""

    def __call__(
        self,
        answers: Floats,
        reference: Reference,
        truth: Sequence[Any],
        /,
        *,
        batch_size: int | None,
        seconds_s: float,
    ) -> Quality: ...


def assess(
    logits: Floats,
    reference: Reference,
    labels: Sequence[int],
    *,
    batch_size: int | None,
    seconds_s: float,
    decisions_of_texts: Sequence[int] = (),
) -> Quality:
    """Compare logits of shape (examples, labels) with the reference's and with the true labels.

    A row with a value that is not finite counts as wrong, by the largest error there is; `decisions_of_texts` are how
    many rows each text has, where that is not one. Raises `ValueError` when the numbers of examples differ.
    """
    known = checked_reference(logits, reference, labels)
    truth = np.asarray(labels)
    finite = finite_rows(logits)
    answers = np.where(finite, np.nan_to_num(logits).argmax(-1), -1)
    expected = known.argmax(-1)
    ranked = np.sort(known, axis=-1)
    flips = answers != expected
    return quality_of(
        right=answers == truth,
        reference_right=expected == truth,
        agrees=~flips,
        finite=finite,
        max_error=largest_error(logits, known),
        margins=(ranked[:, -1] - ranked[:, -2])[flips],
        reference=reference.candidate,
        batch_size=batch_size,
        seconds_s=seconds_s,
        decisions_of_texts=decisions_of_texts,
        commonest_fraction=None if len(decisions_of_texts) else float(np.bincount(truth).max() / len(truth)),
    )


def assess_language(
    answers: Floats,
    reference: Reference,
    following: Sequence[int],
    *,
    batch_size: int | None,
    seconds_s: float,
    decisions_of_texts: Sequence[int] = (),
) -> Quality:
    """Compare a language model's first choices and surprises, (tokens, 2), with the reference's: an example is a token
    that comes next, and it is answered rightly where it is the first choice. `decisions_of_texts` are how many
    tokens each text has.

    Raises `ValueError` when the numbers of tokens differ.
    """
    known, truth = checked_reference(answers, reference, following), np.asarray(following)
    finite = finite_rows(answers)
    surprise = np.nan_to_num(answers[:, 1], nan=np.inf).astype(np.float64)
    return quality_of(
        right=finite & (answers[:, 0] == truth),
        reference_right=known[:, 0] == truth,
        agrees=finite & (answers[:, 0] == known[:, 0]),
        finite=finite,
        max_error=float(np.abs(surprise - known[:, 1])[finite].max(initial=0.0)),
        reference=reference.candidate,
        batch_size=batch_size,
        seconds_s=seconds_s,
        decisions_of_texts=decisions_of_texts,
        perplexity=float(np.exp(surprise.mean())) if finite.all() else None,
        reference_perplexity=float(np.exp(known[:, 1].astype(np.float64).mean())),
    )


def checked_reference(answers: Floats, reference: Reference, truth: Sequence[Any]) -> Floats:
    """The reference's answers. Raises `ValueError` where there are not as many of each."""
    known = reference.answers
    if not len(answers) == len(known) == len(truth):
        raise ValueError(f"{len(answers)} answers, {len(known)} reference answers, {len(truth)} labels")
    return known


def finite_rows(answers: Floats) -> Flags:
    """Which rows hold neither a NaN nor an infinity."""
    return np.asarray(np.isfinite(answers).all(axis=-1))


def largest_error(answers: Floats, known: Floats) -> float:
    """The largest difference; of what is no number, from the largest number there is."""
    broken = float(np.finfo(np.float32).max)
    numbers = [np.nan_to_num(values, nan=broken).astype(np.float64) for values in (answers, known)]
    return float(np.abs(numbers[0] - numbers[1]).max())


def quality_of(
    *,
    right: Flags,
    reference_right: Flags,
    agrees: Flags,
    finite: Flags,
    max_error: float,
    margins: NDArray[np.floating[Any]] | None = None,
    reference: str,
    batch_size: int | None,
    seconds_s: float,
    decisions_of_texts: Sequence[int] = (),
    perplexity: float | None = None,
    reference_perplexity: float | None = None,
    commonest_fraction: float | None = None,
) -> Quality:
    """The record of decisions that were right or not, by the candidate and by the reference.

    `finite` says which answers are numbers, `margins` are the reference's leads where the two do not agree,
    `decisions_of_texts` are how many each text has, where that is not one, and `commonest_fraction` is the share of the
    commonest true label, where each example has one.
    """
    sizes = np.array([size for size in decisions_of_texts if size], dtype=np.int64)
    leads = () if margins is None else np.sort(margins[np.isfinite(margins)])[::-1][:MARGINS]
    return Quality(
        reference=reference,
        batch_size=batch_size,
        examples=len(right),
        accuracy_fraction=float(right.mean()),
        reference_accuracy_fraction=float(reference_right.mean()),
        agreement_fraction=float(agrees.mean()),
        wins=int((right & ~reference_right).sum()),
        losses=int((~right & reference_right).sum()),
        max_error=max_error,
        flip_margins=tuple(float(lead) for lead in leads),
        seconds_s=seconds_s,
        not_finite=int((~finite).sum()),
        perplexity=perplexity,
        reference_perplexity=reference_perplexity,
        commonest_fraction=commonest_fraction,
        by_text=gains_of_texts(right.astype(np.int64) - reference_right, sizes) if len(sizes) else None,
    )
