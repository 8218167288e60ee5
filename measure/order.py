"""How good scores are: whether they put texts into the right order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from measure.quality import Floats, checked_reference, finite_rows, largest_error, quality_of
from measure.records import Quality
from measure.reference import Reference

SEED = 0


def assess_scores(
    scores: Floats, reference: Reference, labels: Sequence[float], *, batch_size: int | None, seconds_s: float
) -> Quality:
    """Compare scores (texts, 1) with the reference's by how they rank pairs of texts whose labels differ.

    A pair is right where the text with the higher label has the higher score, equal scores rank nothing; this share is
    Harrell's concordance (JAMA 1982), for labels of two values an estimate of the area under the ROC curve. No text is
    in two pairs, so that pairs are independent.

    Raises `ValueError` when the numbers of texts differ, or all labels are equal.
    """
    known, truth = checked_reference(scores, reference, labels), np.asarray(labels, dtype=np.float64)
    pairs = pairs_of(truth)
    finite = finite_rows(scores[pairs, 0])
    found, wanted = _lead(np.nan_to_num(scores[:, 0]), pairs), _lead(known[:, 0], pairs)
    higher = np.sign(_lead(truth, pairs))
    agrees = finite & (np.sign(found) == np.sign(wanted))
    return quality_of(
        right=finite & (np.sign(found) == higher),
        reference_right=np.sign(wanted) == higher,
        agrees=agrees,
        finite=finite,
        max_error=largest_error(scores, known),
        margins=np.abs(wanted[~agrees]),
        reference=reference.candidate,
        batch_size=batch_size,
        seconds_s=seconds_s,
    )


def pairs_of(labels: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions (pairs, 2) of texts with different labels, each in one pair at most; the same for the same labels.

    Raises `ValueError` where no two differ.
    """
    order = np.random.default_rng(SEED).permutation(len(labels))
    paired = order[: len(order) // 2 * 2].reshape(-1, 2)
    differ = labels[paired[:, 0]] != labels[paired[:, 1]]
    if differ.any():
        return np.asarray(paired[differ])
    first = int(order[0])
    others = np.flatnonzero(labels != labels[first])
    if not len(others):
        raise ValueError("all labels are equal")
    return np.array([[first, others[0]]])


def _lead(values: NDArray[np.floating], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    return values[pairs[:, 0]].astype(np.float64) - values[pairs[:, 1]]
