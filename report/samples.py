"""What a drawing needs of the raw records: the calls of each process, and few of them that look like all."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from measure.records import Measurement, Record, Session

DRAWN = 200
"""Most calls of one candidate that are drawn for a workload."""

PERCENTILES = {"p90": (0.90, 64), "p95": (0.95, 130), "p99": (0.99, 662)}
"""Which share of the calls is no slower, and the fewest calls that support saying so (docs/measuring.md)."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The newest session, and by the name of each entrant the measurements that answer its question."""

    session: Session
    measurements: dict[str, list[Measurement]]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Answers":
        """Raises `ValueError` when there is no session at all."""
        session = next((record for record in reversed(records) if isinstance(record, Session)), None)
        if session is None:
            raise ValueError("no session was recorded")
        found: defaultdict[str, list[Measurement]] = defaultdict(list)
        for record in records:
            if isinstance(record, Measurement) and record.fingerprint == session.asked.get(record.entrant.name):
                found[record.entrant.name].append(record)
        return cls(session, dict(found))


@dataclass(frozen=True, slots=True)
class Calls:
    """Seconds of the calls of one candidate on one workload, in ascending order: a tuple for each process."""

    processes: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, measurements: Iterable[Measurement], workload: str) -> "Calls":
        found = (
            sorted(sample for block in item.blocks if block.workload == workload for sample in block.samples_s)
            for item in measurements
        )
        return cls(tuple(tuple(samples) for samples in found if samples))

    @property
    def together(self) -> list[float]:
        """The calls of all processes, in ascending order."""
        return sorted(sample for process in self.processes for sample in process)

    @property
    def median_s(self) -> float | None:
        return median(self.together) if self.processes else None

    def percentile_s(self, name: str) -> float | None:
        """The least time that `p90`, `p95` or `p99` of the calls keep; `None` where they are too few to say so."""
        share, least = PERCENTILES[name]
        together = self.together
        return together[ceil(share * len(together)) - 1] if len(together) >= least else None

    def thinned(self, most: int = DRAWN) -> tuple[tuple[float, ...], ...]:
        """At most `most` calls in all: of each process the fastest, the slowest and evenly spaced ranks between."""
        share = max(2, most // max(1, len(self.processes)))
        return tuple(_thinned(process, share) for process in self.processes)


def _thinned(ordered: tuple[float, ...], most: int) -> tuple[float, ...]:
    if len(ordered) <= most:
        return ordered
    return tuple(ordered[round(number * (len(ordered) - 1) / (most - 1))] for number in range(most))
