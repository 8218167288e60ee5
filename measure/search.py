"""The highest rate of queries that keeps a bound: doubling, then bisection, as a pure function of what was tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from measure.traffic import Observed

CLOSE = 1.05
"""The search ends when the lowest rate that does not hold is at most this multiple of the highest that does."""

LOWEST = 1 / 8
"""How far below its start the search goes where nothing holds."""


class Outcome(StrEnum):
    """What a try at one rate says.

    `held`: LoadGen calls it valid, which includes the bound. `late`: the bound was missed. `hopeless`: by the fastest
    answer too, so that no rate can help. `unsure`: the bound was kept, but by too few queries to be sure.
    """

    HELD = "held"
    LATE = "late"
    HOPELESS = "hopeless"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Bracket:
    """The highest rate that held and the lowest above it that did not, in queries a second; `None` where there is
    none."""

    held: float | None
    missed: float | None


def outcome(seen: Observed, bound_s: float) -> Outcome:
    """What a try at one rate says of its bound."""
    if seen.judgement.valid:
        return Outcome.HELD
    if seen.judgement.bound_met is not False:
        return Outcome.UNSURE
    return Outcome.HOPELESS if min(seen.latencies_s) > bound_s else Outcome.LATE


def bracket(tries: Mapping[float, Outcome]) -> Bracket:
    """Where the highest rate that holds lies.

    A rate that held above one that was late does not count: noise works both ways, and this is the careful one.
    """
    late = min((rate for rate, found in tries.items() if found in (Outcome.LATE, Outcome.HOPELESS)), default=None)
    held = max(
        (rate for rate, found in tries.items() if found is Outcome.HELD and (late is None or rate < late)),
        default=None,
    )
    above = [rate for rate, found in tries.items() if found is not Outcome.HELD and (held is None or rate > held)]
    return Bracket(held, min(above, default=None))


def next_rate(tries: Mapping[float, Outcome], start: float, most: float) -> float | None:
    """The rate to try next, in queries a second; `None` when the search is done.

    It begins with `start` and never exceeds `most`. Where nothing has held, a rate that was too low to be sure of is
    where the search goes up from.
    """
    if not tries:
        return min(start, most)
    if Outcome.HOPELESS in tries.values():
        return None
    found = bracket(tries)
    late = [rate for rate, what in tries.items() if what is Outcome.LATE]
    low, high = found.held, found.missed
    if low is None:
        unsure = [rate for rate, what in tries.items() if what is Outcome.UNSURE and not (late and rate > min(late))]
        low, high = max(unsure, default=None), min(late, default=None)
    if low is None:
        lower = min(tries) / 2
        return lower if lower >= LOWEST * max(tries) else None
    if high is None:
        return min(2 * low, most) if low < most else None
    middle = float(f"{sqrt(low * high):.3g}")
    return middle if high > CLOSE * low and low < middle < high else None
