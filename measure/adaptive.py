"""Where more measuring pays: what is not clear yet, as long as the plan can afford it."""

from collections.abc import Callable, Sequence
from statistics import fmean

from measure.cost import next_seconds
from measure.pairing import Measured, Shapes, base_of, log_speeds
from measure.plan import Plan
from measure.records import Entrant, Role
from measure.statistics import is_clear, is_settled


def next_entrants(
    measured: Measured, entrants: Sequence[Entrant], shapes: Shapes, spent_s: float, plan: Plan
) -> list[Entrant]:
    """Who is measured once more, the first of `entrants`, the anchor, always among them: all that are not settled, or,
    where the plan cannot afford as many after `spent_s` seconds, all that are not clear; empty where it can afford
    neither, or all is settled.
    """
    anchor = entrants[0]
    for is_told in (is_settled, is_clear):
        found = _untold(measured, anchor, shapes, is_told)
        chosen = [anchor, *(entrant for entrant in entrants if entrant in found)]
        if found and is_affordable(measured, chosen, spent_s, plan):
            return chosen
    return []


def _untold(
    measured: Measured, anchor: Entrant, shapes: Shapes, is_told: Callable[[Sequence[float]], bool]
) -> frozenset[Entrant]:
    """Whose speed over all workloads is not told yet from the anchor's or from the fastest candidate's; the anchor
    itself is left out."""
    speeds = _speeds(measured, anchor, shapes)
    found = {entrant for entrant, logs in speeds.items() if not is_told(logs)}
    candidates = {entrant: fmean(logs) for entrant, logs in speeds.items() if entrant.role is Role.CANDIDATE}
    fastest = max(candidates, key=candidates.__getitem__, default=anchor)
    if fastest != anchor:
        rivals = {entrant: items for entrant, items in measured.items() if entrant in candidates or entrant == fastest}
        close = {entrant for entrant, logs in _speeds(rivals, fastest, shapes).items() if not is_told(logs)}
        found |= close | ({fastest} if close else set())
    return frozenset(found)


def _speeds(measured: Measured, base: Entrant, shapes: Shapes) -> dict[Entrant, Sequence[float]]:
    """Speed of everyone else as a multiple of the base's: a logarithm for each process, in their order."""
    logs = {
        entrant: log_speeds(items, base_of(measured, base, entrant), shapes, tuple(shapes))
        for entrant, items in measured.items()
        if entrant != base
    }
    return {entrant: found for entrant, found in logs.items() if found}


def is_affordable(measured: Measured, entrants: Sequence[Entrant], spent_s: float, plan: Plan) -> bool:
    """Whether one more process of these stays within the plan: their number, and the seconds that will be spent. What
    was measured so far decides only by its cost."""
    if any(len(measured[entrant]) >= plan.most_replicates for entrant in entrants):
        return False
    return spent_s + sum(next_seconds(measured[entrant], plan) for entrant in entrants) <= plan.limit_s
