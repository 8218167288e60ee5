"""The rule on quality, against figures that stand in the test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.task import Answer
from errors import UserError
from exporter.gate import Gate, Judged
from exporter.parity import Case, Reference, Run
from exporter.subject import Batch, Outputs
from measure.statistics import accuracy_difference
from models.example_set import ExampleSet
from models.metrics import ACCURACY, CORRELATION, Metric

CLASSES = Answer(("logits",), {"logits": -1})
NUMBER = Answer(("logits",), {})
EIGHT = 8


def _cases(logits: NDArray[np.float32]) -> tuple[Case, ...]:
    """Batches of eight; each input is the example's own number."""
    starts = range(0, len(logits), EIGHT)
    rows = [tuple(range(start, min(start + EIGHT, len(logits)))) for start in starts]
    return tuple(
        Case({"number": np.array([[row] for row in part])}, {"logits": logits[list(part)]}, part) for part in rows
    )


def _gate(answer: Answer, logits: Sequence[Any], truth: Sequence[Any] | None, metric: Metric | None) -> Gate:
    """A gate whose reference gives these logits."""
    expected = np.array(logits, dtype=np.float32)
    count = len(expected)
    examples = ExampleSet(
        rows=tuple({"number": np.array([row])} for row in range(count)),
        titles=tuple(f"example {row}" for row in range(count)),
        truth=None if truth is None else tuple(truth),
        padding={},
    )
    return Gate(Reference(answer, "hand-made", examples, _cases(expected), (), (), (), ()), metric)


def _run(logits: Sequence[Any], fails_on: int | None = None) -> Run:
    """Gives these logits, but raises for the batch that holds example `fails_on`."""
    found = np.array(logits, dtype=np.float32)

    def run(batch: Batch) -> Outputs:
        rows = batch["number"][:, 0]
        if fails_on in rows:
            raise RuntimeError("out of memory")
        return {"logits": found[rows]}

    return run


def _classes(right: Mapping[int, bool] | Sequence[bool]) -> list[list[float]]:
    """Logits for class 1 where an answer is right, and for class 0 where it is wrong."""
    return [[0.0, 1.0] if right[row] else [1.0, 0.0] for row in range(len(right))]


def _hundred(right: int) -> list[bool]:
    return [row < right for row in range(100)]


def _accuracy(answers: Sequence[bool], fails_on: int | None = None) -> Judged:
    """Answers to a hundred examples, of which the reference has the first eighty right."""
    gate = _gate(CLASSES, _classes(_hundred(80)), [1] * 100, ACCURACY)
    return gate.judge(_run(_classes(answers), fails_on), Precision.INT8_DYNAMIC)


def test_the_same_answers_keep_the_metric() -> None:
    judged = _accuracy(_hundred(80))
    metric = judged.metric
    assert metric is not None
    assert (metric.name, metric.examples, metric.value, metric.reference) == ("accuracy", 100, 0.8, 0.8)
    assert metric.floor == pytest.approx(0.792)
    assert metric.passed
    assert judged.passed


def test_the_interval_and_the_excluded_drop_are_those_of_the_paired_wins_and_losses() -> None:
    """Two wins and three losses: the examples 80 and 81 turn right, 0 to 2 turn wrong."""
    answers = _hundred(80)
    answers[80] = answers[81] = True
    answers[0] = answers[1] = answers[2] = False
    metric = _accuracy(answers).metric
    assert metric is not None
    expected = accuracy_difference(2, 3, 100)
    assert expected.low is not None
    assert metric.value == pytest.approx(0.79)
    assert metric.difference_low == pytest.approx(expected.low)
    assert metric.difference_high == pytest.approx(expected.high)
    centre, half = -1 / 102, 1.96 * (5 + 1 - 1 / 102) ** 0.5 / 102  # Agresti and Min 2005, by hand
    assert metric.difference_low == pytest.approx(centre - half)
    assert metric.excluded_drop == pytest.approx(half - centre)


@pytest.mark.parametrize(("right", "passed"), [(81, True), (80, True), (79, False)])  # the floor is 79.2 of 100
def test_a_variant_must_keep_99_per_cent_of_the_metric(right: int, passed: bool) -> None:
    judged = _accuracy(_hundred(right))
    assert judged.metric is not None
    assert judged.metric.passed is passed
    assert judged.parity.passed
    assert judged.passed is passed


def test_no_drop_is_excluded_by_less_than_nothing() -> None:
    """All twenty wrong answers turn right: the whole interval lies above zero."""
    metric = _accuracy(_hundred(100)).metric
    assert metric is not None
    assert metric.difference_low > 0
    assert metric.excluded_drop == 0


def test_a_batch_that_fails_counts_as_wrong() -> None:
    judged = _accuracy(_hundred(80), fails_on=3)
    assert judged.metric is not None
    assert judged.metric.value == pytest.approx(0.72)  # the eight of the first batch are lost
    assert not judged.parity.passed
    assert not judged.passed


def test_without_labels_there_is_no_metric() -> None:
    gate = _gate(CLASSES, _classes(_hundred(80)), None, ACCURACY)
    judged = gate.judge(_run(_classes(_hundred(80))), Precision.FP32)
    assert judged.metric is None
    assert judged.passed
    assert not gate.judge(_run(_classes(_hundred(60))), Precision.FP32).passed  # parity still counts


def test_a_task_without_a_metric_is_judged_by_parity_alone() -> None:
    judged = _gate(CLASSES, _classes([True, False]), [1, 1], None).judge(_run([[0, 1], [1, 0]]), Precision.FP32)
    assert (judged.metric, judged.passed) == (None, True)


@pytest.mark.parametrize("truth", [[1.0, 2.0, 3.0, 5.0], [5.0, 3.0, 2.0, 1.0]])
def test_a_correlation_keeps_its_floor_below_it_even_where_it_is_negative(truth: list[float]) -> None:
    logits = [[1.0], [2.0], [4.0], [3.0]]
    judged = _gate(NUMBER, logits, truth, CORRELATION).judge(_run(logits), Precision.FP32)
    r = float(np.corrcoef([1, 2, 4, 3], truth)[0, 1])
    assert judged.metric is not None
    assert judged.metric.value == pytest.approx(r)
    assert judged.metric.floor == pytest.approx(r - 0.01 * abs(r))
    assert judged.passed


def test_other_examples_are_scored_by_the_same_metric() -> None:
    gate = _gate(CLASSES, [[0, 1]], None, ACCURACY)
    outputs = [{"logits": np.array(row, dtype=np.float32)} for row in ([0, 1], [1, 0], [0, 1], [np.nan, 1])]
    assert gate.metric_of(outputs, [1, 1, 0, 1]) == 0.25
    assert gate.metric_of(outputs, None) is None
    assert _gate(CLASSES, [[0, 1]], None, None).metric_of(outputs, [1, 1, 0, 1]) is None


def test_one_more_reason_fails_what_had_passed() -> None:
    judged = _accuracy(_hundred(80)).failed("it holds no int8")
    assert (judged.passed, judged.parity.passed, judged.parity.reasons) == (False, False, ("it holds no int8",))


def test_a_truth_that_the_model_has_no_class_for_is_told() -> None:
    from models.metrics import MEAN_IOU

    with pytest.raises(UserError, match="and the model only 2"):
        _gate(Answer(("logits",), {"logits": 1}), np.zeros((1, 2, 1, 1)).tolist(), [np.array([[7]])], MEAN_IOU)


def test_worse_is_only_what_the_paired_interval_says() -> None:
    """Forty wins and no loss of a hundred are surely better; one win is not."""
    gate = _gate(CLASSES, [[0, 1]], None, ACCURACY)
    right, wrong = {"logits": np.array([0.0, 1.0], np.float32)}, {"logits": np.array([1.0, 0.0], np.float32)}
    truth = [1] * 100
    good = [right] * 100
    assert gate.is_worse([wrong] * 40 + [right] * 60, good, truth)
    assert not gate.is_worse([wrong] + [right] * 99, good, truth)
    assert not gate.is_worse(good, [wrong] * 40 + [right] * 60, truth)
    assert not gate.is_worse([wrong] * 100, good, None)
