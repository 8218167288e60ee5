from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.precision import Precision
from exporter.parity import Batch, ReferenceAnswers, Run, check_parity, reference_answers, shape_batch, shape_grid

FP32, INT8 = Precision.FP32, Precision.INT8_DYNAMIC
EXPECTED = [[1.0, -1.0], [2.0, 4.0], [-10.0, 5.0], [0.5, 0.25]]
SHAPE_EXPECTED = [[3.0, 0.0]]


def _batch(number: int, rows: int) -> Batch:
    return {"input_ids": np.full((rows, 3), number, dtype=np.int64)}


REFERENCE = ReferenceAnswers(
    batches=(_batch(0, 3), _batch(1, 1)),
    logits=np.array(EXPECTED, dtype=np.float32),
    shapes=((1, 3),),
    shape_batches=(_batch(2, 1),),
    shape_logits=(np.array(SHAPE_EXPECTED, dtype=np.float32),),
)


def _answering(texts: Sequence[Sequence[float]], shape: Sequence[Sequence[float]] = SHAPE_EXPECTED) -> Run:
    """A model that gives these logits for the four texts, and those for the one shape."""
    answers = [np.array(rows, dtype=np.float32) for rows in (texts[:3], texts[3:], shape)]
    return lambda batch: answers[batch["input_ids"][0, 0]]


def test_equal_answers_pass() -> None:
    parity = check_parity(_answering(EXPECTED), REFERENCE, FP32)
    assert parity.passed
    assert (parity.texts, parity.scale, parity.max_error, parity.p99_error, parity.flips) == (4, 10, 0, 0, 0)
    assert parity.cosine == pytest.approx(1)
    assert parity.shapes == ((1, 3),)


def test_figures_are_those_worked_by_hand() -> None:
    """Two of four labels flip, with the reference's leads of 2 and 0.25; one error is 4, one 0.5, six are 0."""
    parity = check_parity(_answering([[1, -1], [6, 4], [-10, 5], [0.5, 0.75]]), REFERENCE, INT8)
    assert parity.flips == 2
    assert parity.flip_margins == (2.0, 0.25)
    assert parity.agreement_fraction == 0.5
    assert parity.max_error == 4
    assert parity.p99_error == pytest.approx(0.5 + 3.5 * 0.93)  # between ranks 7 and 8 of 8, at 0.99 × 7 = 6.93
    dot = 1 + 1 + 12 + 16 + 100 + 25 + 0.25 + 0.1875
    norms = (1 + 1 + 4 + 16 + 100 + 25 + 0.25 + 0.0625) * (1 + 1 + 36 + 16 + 100 + 25 + 0.25 + 0.5625)
    assert parity.cosine == pytest.approx(dot / norms**0.5)
    assert parity.reasons == ("2 of 4 labels differ (allowed: 1)", f"cosine {dot / norms**0.5:.6f} is below 0.98")


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("error", "passed"), [(0.9e-3, True), (1.1e-3, False)])  # a 10,000th of the scale is 1e-3
def test_the_tolerance_grows_with_the_scale_of_the_logits(factor: float, error: float, passed: bool) -> None:
    off = np.array(EXPECTED)
    off[1, 0] += error
    reference = ReferenceAnswers(
        REFERENCE.batches,
        REFERENCE.logits * np.float32(factor),
        REFERENCE.shapes,
        REFERENCE.shape_batches,
        tuple(logits * np.float32(factor) for logits in REFERENCE.shape_logits),
    )
    run = _answering((off * factor).tolist(), (np.array(SHAPE_EXPECTED) * factor).tolist())
    assert check_parity(run, reference, FP32).passed is passed


def test_one_flipped_label_fails_fp32_however_small_its_margin() -> None:
    reference = ReferenceAnswers(
        (_batch(0, 3), _batch(1, 1)), np.array([*EXPECTED[:3], [0.5, 0.49999]], np.float32), (), (), ()
    )
    parity = check_parity(_answering([*EXPECTED[:3], [0.5, 0.50001]]), reference, FP32)
    assert not parity.passed
    assert parity.max_error < 1e-4 * parity.scale
    assert parity.flip_margins == pytest.approx((0.00001,), rel=0.01)


def test_an_error_in_a_shape_alone_fails_fp32() -> None:
    parity = check_parity(_answering(EXPECTED, [[3.0, 0.1]]), REFERENCE, FP32)
    assert not parity.passed
    assert parity.max_error == 0
    assert parity.shapes_max_error == pytest.approx(0.1)


@pytest.mark.parametrize("precision", [FP32, INT8])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_fail(precision: Precision, bad: float) -> None:
    one = check_parity(_answering([*EXPECTED[:3], [bad, 0.25]]), REFERENCE, precision)
    every = check_parity(_answering([[bad, bad]] * 4, [[bad, bad]]), REFERENCE, precision)
    for parity in (one, every):
        assert not parity.passed
        assert any("not finite" in reason for reason in parity.reasons)
        assert np.isfinite([parity.max_error, parity.p99_error, parity.cosine]).all()
    assert every.shapes == ()


@pytest.mark.parametrize("precision", [FP32, INT8])
@pytest.mark.parametrize("labels", [1, 3])
def test_another_number_of_labels_fails(precision: Precision, labels: int) -> None:
    parity = check_parity(_answering([[1.0] * labels] * 4), REFERENCE, precision)
    assert not parity.passed
    assert f"a batch of the texts gives the shape (3, {labels}), not (3, 2)" in parity.reasons


def test_another_shape_of_one_batch_fails() -> None:
    parity = check_parity(_answering(EXPECTED, [[3.0]]), REFERENCE, INT8)
    assert parity.reasons == ("shape 1×3 gives the shape (1, 1), not (1, 2)",)


@pytest.mark.parametrize(("fails_on", "reason"), [(2, "shape 1×3 does not run: no"), (1, "a batch of the texts does")])
def test_a_batch_that_does_not_run_is_a_reason(fails_on: int, reason: str) -> None:
    right = _answering(EXPECTED)

    def run(batch: Batch) -> NDArray[np.float32]:
        if batch["input_ids"][0, 0] == fails_on:
            raise RuntimeError("no such kernel")
        return right(batch)

    parity = check_parity(run, REFERENCE, INT8)
    assert not parity.passed
    assert any(found.startswith(reason) for found in parity.reasons)


def test_answers_of_zero_have_no_direction() -> None:
    assert not check_parity(_answering([[0.0, 0.0]] * 4), REFERENCE, INT8).passed


@pytest.mark.parametrize(
    ("longest", "shapes"),
    [(64, ((1, 1), (1, 7), (3, 5), (2, 64))), (5, ((1, 1), (1, 5), (3, 5), (2, 5))), (1, ((1, 1), (3, 1), (2, 1)))],
)
def test_the_grid_has_ones_odd_sizes_and_the_longest(longest: int, shapes: tuple[tuple[int, int], ...]) -> None:
    assert shape_grid(longest) == shapes


def test_random_ids_are_padded_known_and_the_same_each_time() -> None:
    names = ("input_ids", "attention_mask")
    batch = shape_batch(names, (3, 5), 20, 1)
    assert tuple(batch) == names
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    ids = batch["input_ids"]
    assert (ids[batch["attention_mask"] == 0] == 0).all()
    assert 1 <= ids[batch["attention_mask"] == 1].min() <= ids.max() < 20
    assert (ids == shape_batch(names, (3, 5), 20, 1)["input_ids"]).all()
    assert shape_batch(names, (2, 1), 20, 1)["attention_mask"].tolist() == [[1], [1]]


def test_the_reference_answers_every_batch_and_shape() -> None:
    answers = reference_answers(
        lambda batch: batch["input_ids"].sum(-1, keepdims=True).astype(np.float32),
        [_batch(2, 3), _batch(5, 1)],
        ("input_ids",),
        vocabulary=9,
        longest=4,
    )
    assert answers.logits.tolist() == [[6], [6], [6], [15]]
    assert answers.shapes == ((1, 1), (1, 4), (3, 4), (2, 4))
    assert [logits.shape for logits in answers.shape_logits] == [(1, 1), (1, 1), (3, 1), (2, 1)]
