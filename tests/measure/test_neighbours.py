"""Vectors judged by the nearest other text; scikit-learn finds neighbours independently."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from measure.decisions import UNLABELLED
from measure.neighbours import NEAR, ROWS, assess_vectors, closest, nearest
from measure.records import Quality
from measure.reference import Reference

# at 0°, 10°, 25°, 90°, 95° and 120°, of any length: nearest are 1 0 1 4 3 4
ANGLES = np.radians([0, 10, 25, 90, 95, 120])
KNOWN = (np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1) * [[1], [2], [3], [1], [0.5], [7]]).astype(np.float32)
KINDS = [7, 7, 8, 9, 9, 8]  # the reference is right for 0, 1, 3 and 4


def judge(vectors: NDArray[np.float32], kinds: list[int] = KINDS) -> Quality:
    return assess_vectors(vectors, Reference("the reference", KNOWN), kinds, batch_size=None, seconds_s=1)


def moved(row: int, degrees: float) -> NDArray[np.float32]:
    found = KNOWN.copy()
    found[row] = [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]
    return found


def test_the_reference_agrees_with_itself_whatever_the_lengths() -> None:
    found = judge(KNOWN * np.float32(3))
    assert (found.examples, found.agreement_fraction, found.wins, found.losses) == (6, 1, 0, 0)
    assert found.accuracy_fraction == found.reference_accuracy_fraction == pytest.approx(4 / 6)
    assert found.flip_margins == ()


def test_every_figure_by_hand() -> None:
    """Moved to 19°, the second is nearest to the third, and the first still to it: one text finds another one."""
    found = judge(moved(1, 19))
    assert (found.wins, found.losses) == (0, 1)
    assert found.accuracy_fraction == pytest.approx(3 / 6)
    assert found.agreement_fraction == pytest.approx(5 / 6)
    assert found.flip_margins == pytest.approx([np.cos(np.radians(10)) - np.cos(np.radians(15))], abs=1e-6)


def test_a_neighbour_of_another_name_and_the_same_kind_is_right() -> None:
    kinds = [7, 7, 7, 9, 9, 9]
    found = judge(moved(1, 19), kinds)
    assert found.accuracy_fraction == 1
    assert found.agreement_fraction == pytest.approx(5 / 6)


def test_without_labels_right_is_what_the_reference_finds() -> None:
    found = judge(moved(1, 19), [UNLABELLED] * 6)
    assert found.reference_accuracy_fraction == 1
    assert found.accuracy_fraction == found.agreement_fraction == pytest.approx(5 / 6)
    assert (found.wins, found.losses) == (0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_no_number_is_wrong_and_near_to_none(value: float) -> None:
    vectors = KNOWN.copy()
    vectors[1, 0] = value
    found = judge(vectors)
    assert found.not_finite == 1
    assert (found.wins, found.losses) == (0, 2)  # itself, and the first text, whose nearest is the third now


def test_a_broken_vector_is_nobodys_neighbour_even_if_all_others_are_opposite() -> None:
    known = np.array([[1, 0], [-1, 0.1], [-1, -0.1], [1, 0.2]], dtype=np.float32)
    vectors = known.copy()
    vectors[3] = np.nan
    found = assess_vectors(vectors, Reference("r", known), [1, 2, 2, 1], batch_size=None, seconds_s=1)
    assert (found.not_finite, found.losses) == (1, 2)  # itself, and the first, which has no near one left


def test_twins_are_as_near_as_each_other() -> None:
    """Rounding decides which of two equal texts is found; the labels of these two differ."""
    known = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1]], dtype=np.float32)
    turned = np.array([[1, 0], [0.8, 0.6 + 1e-7], [0.8 + 2e-7, 0.6], [0, 1]], dtype=np.float32)
    found = assess_vectors(turned, Reference("r", known), [1, 1, 2, 2], batch_size=None, seconds_s=1)
    assert (found.agreement_fraction, found.wins, found.losses) == (1, 0, 0)


def test_all_broken_is_no_accuracy_at_all() -> None:
    found = judge(np.full_like(KNOWN, np.nan))
    assert (found.accuracy_fraction, found.agreement_fraction, found.not_finite) == (0, 0, 6)


def test_neighbours_are_scikit_learns() -> None:
    """More texts than are held at once; two of a pair are never the same one."""
    vectors = np.random.default_rng(0).normal(size=(ROWS + 77, 5)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = NearestNeighbors(n_neighbors=2, metric="cosine", algorithm="brute").fit(vectors)
    every = np.ones(len(unit), dtype=np.bool_)
    assert nearest(unit, every).tolist() == found.kneighbors(vectors, return_distance=False)[:, 1].tolist()


def test_the_ten_nearest_are_scikit_learns_and_their_share_is_counted() -> None:
    random = np.random.default_rng(1)
    known = random.normal(size=(ROWS + 77, 5)).astype(np.float32)
    moved = known + 0.3 * random.normal(size=known.shape).astype(np.float32)
    sets = []
    for vectors in (known, moved):
        tree = NearestNeighbors(n_neighbors=NEAR + 1, metric="cosine", algorithm="brute").fit(vectors)
        sets.append([set(row[1:]) for row in tree.kneighbors(vectors, return_distance=False).tolist()])
    unit = known / np.linalg.norm(known, axis=-1, keepdims=True)
    every = np.ones(len(unit), dtype=np.bool_)
    assert [set(row) for row in closest(unit, every).tolist()] == sets[0]
    quality = assess_vectors(moved, Reference("r", known), [1] * len(known), batch_size=None, seconds_s=1)
    shares = [len(one & other) / NEAR for one, other in zip(*sets, strict=True)]
    assert quality.neighbours_fraction == pytest.approx(np.mean(shares))
    assert 0.2 < np.mean(shares) < 0.9


def test_what_is_broken_finds_nothing_and_is_not_found() -> None:
    """Of six texts each has five others: the broken one finds none of them, and each of the five finds four."""
    assert judge(KNOWN).neighbours_fraction == 1
    vectors = KNOWN.copy()
    vectors[1, 0] = np.nan
    assert judge(vectors).neighbours_fraction == pytest.approx(5 * 4 / 30)
    alone = assess_vectors(KNOWN[:1], Reference("r", KNOWN[:1]), [7], batch_size=None, seconds_s=1)
    assert alone.neighbours_fraction is None


def test_another_number_of_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="5 answers, 6 reference answers, 6 labels"):
        judge(KNOWN[:5])
