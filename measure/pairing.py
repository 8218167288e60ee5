"""Which samples may be divided by one another: those of the same round of the same replicate of the same session, while
the CPUs lay as close together as they do."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import log
from statistics import fmean, median

from measure.core_distance import is_apart, least_latency
from measure.records import Entrant, Measurement, Role
from measure.statistics import pass_seconds

Shapes = Mapping[str, Sequence[tuple[int, int]]]
"""For each workload, the shapes that a pass of its samples has."""

Measured = Mapping[Entrant, Sequence[Measurement]]

LEAST_REPLICATES = 3
"""So many processes must have been timed with their CPUs together, else those with CPUs apart count as well."""


def pass_times(item: Measurement, shapes: Shapes) -> dict[tuple[str, int], float]:
    """Seconds of a pass for each workload and round of one process."""
    return {
        (block.workload, block.round): pass_seconds(block.samples_s, shapes[block.workload]) for block in item.blocks
    }


def base_of(measured: Measured, base: Entrant, entrant: Entrant) -> list[Measurement]:
    """What an entrant's times are divided by: those of another one. The control is the anchor once more, so candidates
    are divided by both."""
    more = [
        item
        for other, items in measured.items()
        if base.role is Role.ANCHOR and entrant.role is Role.CANDIDATE and other.role is Role.CONTROL
        for item in items
    ]
    return [*measured[base], *more]


def log_speeds(
    mine: Iterable[Measurement], base: Iterable[Measurement], shapes: Shapes, workloads: Sequence[str]
) -> list[float]:
    """Logarithms of the speed of `mine` as a multiple of the base's, one for each replicate in which both ran: the mean
    over `workloads` (so that the ratio is their geometric mean) of the median over rounds.

    Where several processes of one replicate are the base, their geometric mean is. Replicates that share no round of a
    workload are left out, and so are rounds with CPUs apart.
    """
    mine = tuple(mine)
    theirs: defaultdict[tuple[str, int], list[Measurement]] = defaultdict(list)
    for item in base:
        theirs[item.session, item.replicate].append(item)
    replicates = [(item, *theirs[item.session, item.replicate]) for item in mine]
    least_ns = _least_latency((*mine, *chain.from_iterable(theirs.values())))

    def speed(own: Measurement, *others: Measurement, together: bool) -> float | None:
        after, *before = (_log_times(item, shapes, least_ns if together else None) for item in (own, *others))
        logs: defaultdict[str, list[float]] = defaultdict(list)
        for place, log_s in after.items():
            if found := [times[place] for times in before if place in times]:
                logs[place[0]].append(fmean(found) - log_s)
        return fmean(median(logs[name]) for name in workloads) if logs.keys() >= set(workloads) else None

    return _of_replicates(speed, [items for items in replicates if len(items) > 1])


def log_gains(items: Iterable[Measurement], shapes: Shapes, before: str, after: str) -> list[float]:
    """Logarithms of the speed of the workload `after` as a multiple of `before`'s, the median over the same rounds: one
    for each process that ran both, without rounds with CPUs apart."""
    items = tuple(items)
    least_ns = _least_latency(items)

    def gain(item: Measurement, *, together: bool) -> float | None:
        times = _log_times(item, shapes, least_ns if together else None)
        logs = [
            log_s - times[after, number]
            for (name, number), log_s in times.items()
            if name == before and (after, number) in times
        ]
        return median(logs) if logs else None

    return _of_replicates(gain, [(item,) for item in items])


def looks(item: Measurement) -> list[float]:
    """Latencies between CPUs, in nanoseconds, before and after each block of a process."""
    return [ns for block in item.blocks for ns in block.core_latency_ns]


def _least_latency(items: Iterable[Measurement]) -> float | None:
    return least_latency([ns for item in items for ns in looks(item)])


def _log_times(item: Measurement, shapes: Shapes, least_ns: float | None) -> dict[tuple[str, int], float]:
    """Logarithms of the seconds of a pass for each workload and round; where the least latency between CPUs is given,
    only of blocks with CPUs together before and after them."""
    apart = {
        (block.workload, block.round)
        for block in item.blocks
        if any(is_apart(ns, least_ns) for ns in block.core_latency_ns)
    }
    return {place: log(pass_s) for place, pass_s in pass_times(item, shapes).items() if place not in apart}


def _of_replicates(value: Callable[..., float | None], replicates: Sequence[tuple[Measurement, ...]]) -> list[float]:
    """A value of each replicate with CPUs together, if enough of them have one, else with CPUs as they lay."""
    together = [found for items in replicates if (found := value(*items, together=True)) is not None]
    if len(together) >= min(LEAST_REPLICATES, len(replicates)):
        return together
    return [found for items in replicates if (found := value(*items, together=False)) is not None]
