"""One run's measurements by candidate: what two runs are compared from."""

from collections.abc import Sequence
from math import log
from statistics import median

import msgspec

from measure.pairing import base_of, log_speeds, pass_times
from measure.records import Quality, Record, Role
from report.evidence import Evidence
from report.judge import DEFAULT, judge
from report.verdict import Ratio


class Run(msgspec.Struct, frozen=True):
    """A run's name and all its records."""

    name: str
    records: Sequence[Record]


class MeasuredRun:
    """What answers a run's newest question, by candidate; the control is left out.

    Times are logarithms of seconds, because ratios are compared. Raises `ValueError` when there is no session.
    """

    def __init__(self, run: Run) -> None:
        evidence = Evidence(run.records, DEFAULT)
        self.name = run.name
        self.verdict = judge(run.records)
        self.session = evidence.session
        self.workloads = evidence.specs
        self.anchor = self.verdict.baseline
        self.rows = {row.name: row for row in self.verdict.rows if row.measured and row.role is not Role.CONTROL}
        self.measurements = {
            entrant.name: items for entrant, items in evidence.by_entrant.items() if entrant.role is not Role.CONTROL
        }
        self._by_entrant, self._anchor = evidence.by_entrant, evidence.anchor
        self._shapes = evidence.shapes
        self._failures = {
            record.name: record.reason if record.stage in ("probe", "model") else f"{record.stage}: {record.reason}"
            for record in evidence.failures
            if record.role is not Role.CONTROL
        }

    def failure(self, name: str) -> str | None:
        """Why a candidate, or its whole runtime, failed; `None` where it did not."""
        return self._failures.get(name) or self._failures.get(name.partition("/")[0])

    def processes(self, name: str) -> set[tuple[str, int]]:
        """Session and replicate of each of a candidate's processes."""
        return {(item.session, item.replicate) for item in self.measurements[name]}

    def times(self, name: str, workload: str) -> list[float]:
        """Time of a batch: of each process the median of its rounds."""
        batches = len(self.workloads[workload].shapes)
        processes = [
            [seconds for (which, _), seconds in pass_times(item, self._shapes).items() if which == workload]
            for item in self.measurements[name]
        ]
        return [median(log(pass_s / batches) for pass_s in rounds) for rounds in processes if rounds]

    def relative_times(self, name: str, workload: str) -> list[float]:
        """Time of a batch less the anchor's in the same round: of each process the median."""
        if self._anchor is None:
            return []
        entrant = next(entrant for entrant in self._by_entrant if entrant.name == name)
        base = base_of(self._by_entrant, self._anchor, entrant)
        return [-speed for speed in log_speeds(self.measurements[name], base, self._shapes, (workload,))]

    def speed(self, name: str, workload: str) -> Ratio | None:
        """The speed-up over the run's own anchor; `None` for the anchor."""
        return next((found.speed for found in self.rows[name].workloads if found.workload == workload), None)

    def scores(self, name: str) -> dict[str, Quality]:
        """Answers by the way of batching: `served` or a batch size."""
        return {
            "served" if score.batch_size is None else str(score.batch_size): score
            for item in self.measurements[name]
            for score in item.quality
        }
