"""Where which candidate wins: a map over batch sizes and lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

from measure.records import Measurement, Role
from measure.statistics import Decision, decide, pass_seconds, ratio_interval
from report.samples import Answers
from report.verdict import Ratio, Row, Verdict

LEAST_FIXED = 2
"""Workloads of a fixed shape without which there is nothing to map."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The fastest and the second of one workload, and the winner's speed as a multiple of the second's; `None` where
    the two never ran in the same round."""

    winner: Row
    second: Row
    lead: Ratio | None

    @property
    def is_close(self) -> bool:
        """Whether the two cannot be told apart by more than 2 %."""
        return self.lead is None or self.lead.decision in (Decision.EQUIVALENT, Decision.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Batch sizes down, lengths across (`16`, `128`, …, the natural mix last); what was not measured has no cell."""

    batch_sizes: tuple[int, ...]
    lengths: tuple[str, ...]
    cells: Mapping[tuple[int, str], Cell]


def break_even(verdict: Verdict, answers: Answers) -> BreakEven | None:
    """The map over every candidate that may be recommended.

    `None` where there are fewer than two of them, or fewer than two workloads of a fixed shape.
    """
    rows = [row for row in verdict.rows if row.measured and row.reason is None and row.role is not Role.CONTROL]
    specs = {spec.name: spec for spec in answers.session.workloads if spec.from_text is None}
    lengths = {name: name.partition("×")[2] for name in specs}
    fixed = [name for name in specs if lengths[name].isdecimal()]
    if len(fixed) < LEAST_FIXED or len(rows) < 2:
        return None
    cells = {(spec.batch_size, lengths[name]): _cell(name, rows, answers) for name, spec in specs.items()}
    return BreakEven(
        batch_sizes=tuple(sorted({spec.batch_size for spec in specs.values()})),
        lengths=tuple(sorted(set(lengths.values()), key=lambda word: (not word.isdecimal(), len(word), word))),
        cells={place: cell for place, cell in cells.items() if cell},
    )


def _cell(workload: str, rows: Sequence[Row], answers: Answers) -> Cell | None:
    """The two fastest by their speed against the baseline; `None` where fewer than two have one."""
    speeds = {row.name: speed for row in rows if (speed := _speed(row, workload))}
    ranked = sorted((row for row in rows if row.name in speeds), key=lambda row: (-speeds[row.name], row.name))
    if len(ranked) < 2:
        return None
    winner, second = ranked[:2]
    return Cell(winner, second, _lead(winner.name, second.name, workload, answers))


def _speed(row: Row, workload: str) -> float | None:
    if row.role is Role.ANCHOR:
        return 1.0
    return next((item.speed.ratio for item in row.workloads if item.workload == workload and item.speed), None)


def _lead(winner: str, second: str, workload: str, answers: Answers) -> Ratio | None:
    """Speed of one as a multiple of the other's, in the rounds that both ran in."""
    shapes = next(spec.sample_shapes for spec in answers.session.workloads if spec.name == workload)
    theirs = {(item.session, item.replicate): _passes(item, workload, shapes) for item in answers.measurements[second]}
    replicates = []
    for item in answers.measurements[winner]:
        own, other = _passes(item, workload, shapes), theirs.get((item.session, item.replicate), {})
        replicates.append([log(other[number] / own[number]) for number in sorted(own.keys() & other.keys())])
    paired = [logs for logs in replicates if logs]
    if not paired:
        return None
    interval = ratio_interval(paired, answers.session.plan.seed)
    return Ratio(ratio=interval.estimate, low=interval.low, high=interval.high, decision=decide(interval))


def _passes(item: Measurement, workload: str, shapes: Sequence[tuple[int, int]]) -> dict[int, float]:
    """Seconds of a pass in each round of one process."""
    return {block.round: pass_seconds(block.samples_s, shapes) for block in item.blocks if block.workload == workload}
