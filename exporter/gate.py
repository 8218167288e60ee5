"""Whether a variant is good enough: parity with PyTorch first, then the task's metric against the reference's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.variant import Metric, Parity
from exporter.parity import Reference, Run, check_parity, example_outputs
from exporter.subject import Outputs
from models.metrics import Metric as TaskMetric
from models.metrics import compare

FLOOR = 0.99
"""Share of the reference's metric that a variant must keep."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A variant's parity and, where examples are labelled, its metric."""

    parity: Parity
    metric: Metric | None

    @property
    def passed(self) -> bool:
        return self.parity.passed and (self.metric is None or self.metric.passed)

    def failed(self, reason: str) -> "Judged":
        """The same, failed for one more reason."""
        parity = msgspec.structs.replace(self.parity, passed=False, reasons=(*self.parity.reasons, reason))
        return replace(self, parity=parity)


class Gate:
    """Judges variants by one reference; `metric` is the task's, where the examples are labelled."""

    def __init__(self, reference: Reference, metric: TaskMetric | None) -> None:
        self.reference = reference
        self._task_metric = metric
        self._metric = metric if reference.examples.truth is not None else None
        self._expected = self._statistics(
            [row for case in reference.batches for row in example_outputs(reference.answer, case.expected, case)]
        )

    def judge(self, run: Run, precision: Precision, *, emulated: bool = False) -> Judged:
        """Run a variant over everything the reference ran."""
        answered = check_parity(run, self.reference, precision, emulated=emulated)
        return Judged(answered.parity, self._score(answered.outputs))

    def metric_of(self, outputs: Sequence[Outputs], truth: Sequence[Any] | None) -> float | None:
        """The task's metric on other examples than the reference's; `None` where these are not labelled."""
        if self._task_metric is None or truth is None:
            return None
        rows = [self._task_metric.statistics(found, wanted) for found, wanted in zip(outputs, truth, strict=True)]
        return float(self._task_metric.value(np.asarray(rows, dtype=np.float64).sum(axis=0)))

    def is_worse(self, outputs: Sequence[Outputs], other: Sequence[Outputs], truth: Sequence[Any] | None) -> bool:
        """Whether answers are surely worse than others by the metric: their paired 95 % interval lies below 0."""
        if self._task_metric is None or truth is None:
            return False
        statistics = self._task_metric.statistics
        mine, theirs = (
            np.asarray([statistics(*pair) for pair in zip(found, truth, strict=True)], dtype=np.float64)
            for found in (outputs, other)
        )
        high = compare(self._task_metric, mine, theirs).difference.high
        return high is not None and high < 0

    def _score(self, outputs: Sequence[Outputs]) -> Metric | None:
        if self._metric is None:
            return None
        found = compare(self._metric, self._statistics(outputs), self._expected)
        floor = found.reference - (1 - FLOOR) * abs(found.reference)  # a correlation may be negative
        low, high = found.difference.low, found.difference.high
        if low is None or high is None:
            raise ValueError("a paired difference always has an interval")
        return Metric(
            name=self._metric.name,
            examples=found.examples,
            value=found.value,
            reference=found.reference,
            difference_low=low,
            difference_high=high,
            floor=floor,
            excluded_drop=max(0.0, -low),
            passed=found.value >= floor,
        )

    def _statistics(self, outputs: Sequence[Outputs]) -> NDArray[np.float64]:
        """One row of the metric's statistics for each example."""
        truth = self.reference.examples.truth
        if self._metric is None or truth is None:
            return np.zeros((0, 1))
        return np.asarray(
            [self._metric.statistics(found, wanted) for found, wanted in zip(outputs, truth, strict=True)]
        )
