"""How good vectors are: whether each text's nearest other one is of its kind."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from measure.decisions import UNLABELLED
from measure.quality import Flags, Floats, checked_reference, finite_rows, largest_error, quality_of
from measure.records import Quality
from measure.reference import Reference

TIE = 1e-6
"""A cosine that is greater by no more than this is so by rounding."""

NEAR = 10
"""Texts around each other one that a search would show."""

ROWS = 1024
"""Texts whose similarities to all others are held at once."""


def assess_vectors(
    vectors: Floats, reference: Reference, kinds: Sequence[int], *, batch_size: int | None, seconds_s: float
) -> Quality:
    """Compare vectors (texts, features) with the reference's by the nearest other text of each.

    It is right where both are of one kind; where texts are `UNLABELLED`, right is the one that the reference finds. Two
    agree where they find the same one, or one that is as near by the reference's vectors, as twins are. A vector with a
    value that is not finite is wrong and near to none. How many of the reference's ten nearest are among those
    here decides nothing; it tells whether what is found instead is near, too.

    Raises `ValueError` when the numbers of texts differ.
    """
    known, labels = checked_reference(vectors, reference, kinds), np.asarray(kinds)
    finite = finite_rows(vectors)
    unit, expected = _unit(vectors), _unit(known)
    found, wanted = nearest(unit, finite), nearest(expected, finite_rows(known))
    leads = (expected * (expected[wanted] - expected[found])).sum(axis=-1)
    found = np.where(leads <= TIE, wanted, found)
    agrees = finite & (found == wanted)
    right, reference_right = finite & (labels[found] == labels), labels[wanted] == labels
    if (labels == UNLABELLED).all():
        right, reference_right = agrees, np.ones_like(agrees)
    quality = quality_of(
        right=right,
        reference_right=reference_right,
        agrees=agrees,
        finite=finite,
        max_error=largest_error(vectors, known),
        margins=leads[~agrees],
        reference=reference.candidate,
        batch_size=batch_size,
        seconds_s=seconds_s,
    )
    kept = _shared(closest(unit, finite), closest(expected, finite_rows(known)), finite)
    return msgspec.structs.replace(quality, neighbours_fraction=kept)


def nearest(unit: Floats, counted: Flags) -> NDArray[np.intp]:
    """For each vector of length 1 the position of the other one, among those `counted`, with the greatest cosine; the
    first of equals."""
    return np.concatenate([cosines.argmax(axis=-1) for cosines in _to_others(unit, counted)])


def closest(unit: Floats, counted: Flags) -> NDArray[np.intp]:
    """For each vector of length 1 the positions of the `NEAR` other ones, or of all where there are fewer, with the
    greatest cosines, in any order."""
    count = min(NEAR, len(unit) - 1)
    return np.concatenate(
        [np.argpartition(-cosines, max(count - 1, 0), axis=-1)[:, :count] for cosines in _to_others(unit, counted)]
    )


def _to_others(unit: Floats, counted: Flags) -> Iterator[Floats]:
    """Cosines of some vectors at a time to all; those to itself and to what is not `counted` are less than any."""
    for start in range(0, len(unit), ROWS):
        cosines = unit[start : start + ROWS] @ unit.T
        cosines[:, ~counted] = -np.inf
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        yield cosines


def _shared(found: NDArray[np.intp], wanted: NDArray[np.intp], counted: Flags) -> float | None:
    """The mean share of `wanted`, (texts, near), that is in `found`; what is not `counted` finds nothing and is not
    found. `None` where there are no others."""
    if not wanted.shape[1]:
        return None
    hits = (wanted[:, :, None] == found[:, None, :]).any(axis=-1) & counted[wanted] & counted[:, None]
    return float(hits.mean())


def _unit(vectors: Floats) -> Floats:
    """The vectors scaled to length 1; what is not finite becomes 0."""
    numbers = np.where(finite_rows(vectors)[:, None], vectors, 0).astype(np.float64)
    lengths = np.linalg.norm(numbers, axis=-1, keepdims=True)
    return np.asarray(numbers / np.where(lengths > 0, lengths, 1), dtype=np.float32)
