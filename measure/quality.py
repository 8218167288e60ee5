"""How good a candidate's answers are, against the labels and against the reference."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from measure.records import Quality
from measure.reference import Reference


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
    known = reference.logits
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
