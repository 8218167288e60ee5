"""Which samples may be divided by one another: those of the same round of the same replicate of the same session."""

from collections.abc import Iterable, Mapping, Sequence
from math import log

from measure.records import Measurement
from measure.statistics import pass_seconds

Shapes = Mapping[str, Sequence[tuple[int, int]]]
"""For each workload, the shapes that a pass of its samples has."""


def pass_times(item: Measurement, shapes: Shapes) -> dict[tuple[str, int], float]:
    """Seconds of a pass for each workload and round of one process."""
    return {
        (block.workload, block.round): pass_seconds(block.samples_s, shapes[block.workload]) for block in item.blocks
    }


def log_speeds(
    mine: Iterable[Measurement], base: Iterable[Measurement], shapes: Shapes, workloads: Sequence[str]
) -> list[list[float]]:
    """Logarithms of the speed of `mine` as a multiple of the base's: for each replicate in which both ran a list of its
    rounds, each the mean over `workloads` (so that the ratio is their geometric mean).

    Replicates that share no whole round are left out.
    """
    theirs = {(item.session, item.replicate): pass_times(item, shapes) for item in base}
    replicates = []
    for item in mine:
        own, other = pass_times(item, shapes), theirs.get((item.session, item.replicate), {})
        rounds = sorted({number for _, number in own.keys() & other.keys()})
        replicates.append(
            [
                sum(log(other[name, number] / own[name, number]) for name in workloads) / len(workloads)
                for number in rounds
                if all((name, number) in own and (name, number) in other for name in workloads)
            ]
        )
    return [logs for logs in replicates if logs]


def log_gains(items: Iterable[Measurement], shapes: Shapes, before: str, after: str) -> list[list[float]]:
    """Logarithms of the speed of the workload `after` as a multiple of `before`'s, in the same rounds of the same
    processes: a list for each process that ran both."""
    replicates = []
    for item in items:
        pass_s = pass_times(item, shapes)
        rounds = sorted(number for name, number in pass_s if name == before and (after, number) in pass_s)
        replicates.append([log(pass_s[before, number] / pass_s[after, number]) for number in rounds])
    return [logs for logs in replicates if logs]
