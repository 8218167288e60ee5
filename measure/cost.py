"""What measuring costs: the seconds that were spent on a question, and those of one more process. Pure functions of
records."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import median

from measure.plan import Plan
from measure.records import Entrant, Measurement, Record


def spent_seconds(known: Iterable[Record], measured: Mapping[Entrant, Sequence[Measurement]]) -> float:
    """Seconds of sessions in which these were measured, of those that measured others as well their share: what the
    processes themselves took is known, what else happened belongs to all of a session's alike."""
    every = _by_session(record for record in known if isinstance(record, Measurement))
    ours = _by_session(chain.from_iterable(measured.values()))
    return sum(_share(items, every[session]) for session, items in ours.items())


def _by_session(items: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for item in items:
        found.setdefault(item.session, []).append(item)
    return found


def _share(ours: Sequence[Measurement], every: Sequence[Measurement]) -> float:
    own_s, all_s = (sum(item.process_s for item in items) for items in (ours, every))
    lasted_s = max(item.session_s or 0.0 for item in every)
    return max(own_s, lasted_s * own_s / all_s) if all_s else 0.0


def next_seconds(items: Sequence[Measurement], plan: Plan) -> float:
    """What one more process costs, the median of the lean ones of these; before there is one, of all with as many
    rounds as a lean one makes."""
    lean = [item.process_s for item in items if plan.is_lean(item.replicate)]
    rounds = plan.of(plan.replicates).rounds
    return median(lean or [item.start_s + rounds * item.round_s for item in items])
