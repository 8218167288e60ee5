"""What a drawing needs of the raw samples: the calls of each process, and few of them that look like all."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from measure.records import Measurement

DRAWN = 200
"""Most calls of one candidate that are drawn for a workload."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Seconds of the calls of one candidate on one workload, in ascending order: a tuple for each process."""

    processes: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, measurements: Iterable[Measurement], workload: str) -> "Calls":
        """Processes without a call of the workload are left out."""
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

    def thinned(self, most: int = DRAWN) -> tuple[tuple[float, ...], ...]:
        """At most `most` calls in all: of each process the fastest, the slowest and evenly spaced ranks between."""
        share = max(2, most // max(1, len(self.processes)))
        return tuple(_thinned(process, share) for process in self.processes)


def _thinned(ordered: tuple[float, ...], most: int) -> tuple[float, ...]:
    if len(ordered) <= most:
        return ordered
    return tuple(ordered[round(number * (len(ordered) - 1) / (most - 1))] for number in range(most))
