"""One run's measurements by candidate: what two runs are compared from."""

from collections.abc import Sequence
from math import log
from statistics import median

import msgspec

from measure.records import Failure, Measurement, Quality, Record, Role, Session
from measure.statistics import pass_seconds
from report.judge import judge
from report.verdict import Ratio


class Run(msgspec.Struct, frozen=True):
    """A run's name and all its records."""

    name: str
    records: Sequence[Record]


class MeasuredRun:
    """What answers a run's newest question, by candidate; the control is left out.

    All times are logarithms of seconds, because ratios are compared. Raises `ValueError` when there is no session.
    """

    def __init__(self, run: Run) -> None:
        self.name = run.name
        self.verdict = judge(run.records)
        self.session = [record for record in run.records if isinstance(record, Session)][-1]
        self.workloads = {spec.name: spec for spec in self.session.workloads}
        self.anchor = self.verdict.baseline
        self.rows = {row.name: row for row in self.verdict.rows if row.measured and row.role is not Role.CONTROL}
        self.measurements: dict[str, list[Measurement]] = {name: [] for name in self.rows}
        for record in run.records:
            if isinstance(record, Measurement) and record.fingerprint == self.session.asked.get(record.entrant.name):
                self.measurements.get(record.entrant.name, []).append(record)
        self._failures = {
            record.name: record.reason if record.stage in ("probe", "model") else f"{record.stage}: {record.reason}"
            for record in run.records
            if isinstance(record, Failure)
            and record.session == self.session.session
            and record.role is not Role.CONTROL
        }

    def failure(self, name: str) -> str | None:
        """Why a candidate, or its whole runtime, failed; `None` where it did not."""
        return self._failures.get(name) or self._failures.get(name.partition("/")[0])

    def processes(self, name: str) -> set[tuple[str, int]]:
        """Session and replicate of each of a candidate's processes."""
        return {(item.session, item.replicate) for item in self.measurements[name]}

    def times(self, name: str, workload: str) -> list[float]:
        """Time of a batch: of each process the median of its rounds."""
        return [median(rounds.values()) for rounds in self._rounds(name, workload).values() if rounds]

    def relative_times(self, name: str, workload: str) -> list[float]:
        """Time of a batch less the anchor's in the same round: of each process the median."""
        if self.anchor is None:
            return []
        anchors, found = self._rounds(self.anchor, workload), []
        for process, mine in self._rounds(name, workload).items():
            theirs = anchors.get(process, {})
            paired = [mine[number] - theirs[number] for number in mine if number in theirs]
            found += [median(paired)] if paired else []
        return found

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

    def _rounds(self, name: str, workload: str) -> dict[tuple[str, int], dict[int, float]]:
        """Time of a batch by process and round."""
        spec = self.workloads[workload]
        return {
            (item.session, item.replicate): {
                block.round: log(pass_seconds(block.samples_s, spec.sample_shapes) / len(spec.shapes))
                for block in item.blocks
                if block.workload == workload
            }
            for item in self.measurements[name]
        }
