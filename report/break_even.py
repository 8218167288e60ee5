"""Where which candidate wins: a map over batch sizes and lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from measure.records import Role
from measure.workload import WorkloadSpec
from report.evidence import Evidence
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
    def is_undecided(self) -> bool:
        """Whether there were too few runs to say anything."""
        return self.lead is not None and not self.lead.is_known

    @property
    def is_close(self) -> bool:
        """Whether the two cannot be told apart by more than 2 %."""
        return self.lead is None or self.lead.is_close


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Batch sizes down, lengths across (`16`, `128`, …, the natural mix last; of a language model `read 16`, …); what
    was not measured has no cell."""

    batch_sizes: tuple[int, ...]
    lengths: tuple[str, ...]
    cells: Mapping[tuple[int, str], Cell]


def break_even(verdict: Verdict, evidence: Evidence) -> BreakEven | None:
    """The map over every candidate that may be recommended; their leads are judged together.

    `None` where there are fewer than two of them, or fewer than two workloads of a fixed shape.
    """
    rows = [row for row in verdict.rows if row.measured and row.reason is None and row.role is not Role.CONTROL]
    specs = {spec.name: spec for spec in evidence.session.workloads if spec.from_text is None}
    lengths = {name: _column(spec) for name, spec in specs.items()}
    if sum(length[-1:].isdecimal() for length in lengths.values()) < LEAST_FIXED or len(rows) < 2:
        return None
    firsts = {name: pair for name in specs if (pair := _first_two(rows, name))}
    leads = evidence.leads([(*pair, name) for name, pair in firsts.items()])
    return BreakEven(
        batch_sizes=tuple(sorted({spec.batch_size for spec in specs.values()})),
        lengths=tuple(sorted(set(lengths.values()), key=lambda word: (not word[-1:].isdecimal(), len(word), word))),
        cells={
            (specs[name].batch_size, lengths[name]): Cell(*pair, lead)
            for (name, pair), lead in zip(firsts.items(), leads, strict=True)
        },
    )


def _column(spec: WorkloadSpec) -> str:
    """`128` or `natural`; of a language model `read 128`."""
    length = spec.name.partition("×")[2]
    return f"{spec.phase} {length}" if spec.phase else length


def _first_two(rows: Sequence[Row], workload: str) -> tuple[Row, Row] | None:
    """The two fastest by their speed against the baseline; `None` where fewer than two have one."""
    speeds = {row.name: speed for row in rows if (speed := row.speed_at(workload))}
    ranked = sorted((row for row in rows if row.name in speeds), key=lambda row: -speeds[row.name])
    return (ranked[0], ranked[1]) if len(ranked) > 1 else None
