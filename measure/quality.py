"""How good a candidate's answers are, against the labels and against the reference."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from measure.records import Quality
from measure.reference import Reference


class Assess(Protocol):
    """How answers are compared with the reference's and with what is right."""

    def __call__(
        self,
        answers: NDArray[np.float32],
        reference: Reference,
        labels: Sequence[int],
        /,
        *,
        batch_size: int | None,
        seconds_s: float,
    ) -> Quality: ...


def assess(
    logits: NDArray[np.float32],
    reference: Reference,
    labels: Sequence[int],
    *,
    batch_size: int | None,
    seconds_s: float,
) -> Quality:
    """Compare logits of shape (examples, labels) with the reference's and with the true labels.

    A row with a value that is not finite counts as wrong, by the largest error there is. Raises `ValueError` when the
    numbers of examples differ.
    """
    known = reference.answers
    if not len(logits) == len(known) == len(labels):
        raise ValueError(f"{len(logits)} answers, {len(known)} reference answers, {len(labels)} labels")
    truth = np.asarray(labels)
    finite = np.isfinite(logits).all(axis=-1)
    answers = np.where(finite, np.nan_to_num(logits).argmax(-1), -1)
    expected = known.argmax(-1)
    right, reference_right = answers == truth, expected == truth
    ranked = np.sort(known, axis=-1)
    flips = answers != expected
    margins = np.sort((ranked[:, -1] - ranked[:, -2])[flips])[::-1]
    errors = np.abs(np.nan_to_num(logits, nan=float(np.finfo(np.float32).max)).astype(np.float64) - known)
    return Quality(
        reference=reference.candidate,
        batch_size=batch_size,
        examples=len(truth),
        accuracy_fraction=float(right.mean()),
        reference_accuracy_fraction=float(reference_right.mean()),
        agreement_fraction=float(1 - flips.mean()),
        wins=int((right & ~reference_right).sum()),
        losses=int((~right & reference_right).sum()),
        max_error=float(errors.max()),
        flip_margins=tuple(float(margin) for margin in margins[:20]),
        seconds_s=seconds_s,
        not_finite=int((~finite).sum()),
    )


def assess_language(
    answers: NDArray[np.float32],
    reference: Reference,
    following: Sequence[int],
    *,
    batch_size: int | None,
    seconds_s: float,
) -> Quality:
    """Compare a language model's first choices and surprises, (tokens, 2), with the reference's: an example is a token
    that comes next, and it is answered rightly where it is the first choice.

    Raises `ValueError` when the numbers of tokens differ.
    """
    known, truth = reference.answers, np.asarray(following)
    if not len(answers) == len(known) == len(truth):
        raise ValueError(f"{len(answers)} tokens, {len(known)} of the reference, {len(truth)} that come next")
    finite = np.isfinite(answers).all(axis=-1)
    right, reference_right = finite & (answers[:, 0] == truth), known[:, 0] == truth
    agrees = finite & (answers[:, 0] == known[:, 0])
    surprise = np.nan_to_num(answers[:, 1], nan=np.inf).astype(np.float64)
    return Quality(
        reference=reference.candidate,
        batch_size=batch_size,
        examples=len(truth),
        accuracy_fraction=float(right.mean()),
        reference_accuracy_fraction=float(reference_right.mean()),
        agreement_fraction=float(agrees.mean()),
        wins=int((right & ~reference_right).sum()),
        losses=int((~right & reference_right).sum()),
        max_error=float(np.abs(surprise - known[:, 1])[finite].max(initial=0.0)),
        flip_margins=(),
        seconds_s=seconds_s,
        not_finite=int((~finite).sum()),
        perplexity=float(np.exp(surprise.mean())) if finite.all() else None,
        reference_perplexity=float(np.exp(known[:, 1].astype(np.float64).mean())),
    )
