"""What a comparison of runs shows, before it is known where."""

from collections.abc import Callable
from typing import TypeVar

from measure.statistics import Decision
from report.difference import AccuracyChange, Basis, Bounds, Difference, Differences, Factor, Outcome, SpeedChange
from report.figures import DASH, seconds, size, started, times
from report.tables import Table

Number = TypeVar("Number", int, float)


def headline(differences: Differences, difference: Difference) -> tuple[str, ...]:
    """The answer in sentences: what regressed, what was not shown, and what speed was judged by."""
    bounds = differences.bounds
    lines = [f"Regressed: {text}." for text in _regressions(difference)]
    if not difference.is_judged:
        lines.append("Nothing could be judged.")
    elif not lines:
        lines.append(f"No regression was found: the bounds are {bounds_text(bounds)}.")
    if difference.not_shown:
        lines.append(f"Not shown to be within the bounds: {', '.join(difference.not_shown)}.")
    elif not difference.regressions:
        lines.append("Everything was shown to be within them.")
    judged = "Speed is not judged" if difference.basis is Basis.NONE else f"Speed is judged by {difference.basis}"
    lines.append(f"{judged}: {difference.reason}.")
    if difference.added:
        lines.append(f"Only in {difference.later}: {', '.join(difference.added)}.")
    return tuple(lines)


def bounds_text(bounds: Bounds) -> str:
    """`5 % of time and 1 % of accuracy`."""
    return f"{100 * bounds.slowdown_fraction:g} % of time and {100 * bounds.accuracy_drop_fraction:g} % of accuracy"


def tables(difference: Difference) -> tuple[Table, ...]:
    """What differs, the verdict on speed, the figures it is made of, accuracy, costs, and what is missing."""
    every = (
        what_differs(difference),
        time_changes(difference),
        side_by_side(difference),
        accuracy_changes(difference),
        costs(difference),
        lost(difference),
    )
    return tuple(table for table in every if table and table.rows)


def what_differs(difference: Difference) -> Table | None:
    """Everything recorded that is not the same; `None` when nothing is recorded."""
    if not difference.changes:
        return None
    return Table(
        title="What differs",
        headers=("what", difference.base, difference.later),
        rows=tuple((change.what, change.base, change.later) for change in difference.changes),
    )


def time_changes(difference: Difference) -> Table:
    """How many times as long each candidate takes, on the basis that is judged."""
    names = _workloads(difference)
    basis = {
        Basis.RELATIVE: f"relative to {difference.anchor}, ",
        Basis.SECONDS: "in seconds, ",
        Basis.NONE: "not judged, ",
    }[difference.basis]
    rows = [
        (
            item.name,
            *(_judged(next((speed for speed in item.speeds if speed.workload == name), None)) for name in names),
        )
        for item in difference.candidates
    ]
    return Table(
        title=f"Time of {difference.later} as a multiple of {difference.base}'s, {basis}with a 95 % interval",
        headers=("candidate", *names),
        rows=tuple(rows),
    )


def side_by_side(difference: Difference) -> Table:
    """Seconds of a batch in both runs, how they compare where they may be, and each run's own speed-up."""
    return Table(
        title="Side by side: one batch, and the speed-up over each run's own anchor",
        headers=("candidate", "workload", "base", "later", "seconds, later/base", "speed-up, base", "speed-up, later"),
        rows=tuple(
            (
                item.name if number == 0 else "",
                speed.workload,
                seconds(speed.base_batch_s),
                seconds(speed.later_batch_s),
                factor(speed.seconds),
                times(speed.base_speed),
                times(speed.later_speed),
            )
            for item in difference.candidates
            for number, speed in enumerate(item.speeds)
        ),
    )


def accuracy_changes(difference: Difference) -> Table | None:
    """Accuracy in both runs and the difference in points; `None` where no answers were scored in both."""
    found = [(item.name, item.accuracy) for item in difference.candidates if item.accuracy]
    if not found:
        return None
    return Table(
        title=f"{started(difference.measure)}, with a 95 % interval of the difference in points",
        headers=("candidate", "batches", "base", "later", "difference", "pairs", ""),
        rows=tuple(
            (
                name,
                change.batching,
                f"{change.base_fraction:.3f}",
                f"{change.later_fraction:.3f}",
                _points(change),
                DASH if change.low is None else change.pairing,
                change.outcome,
            )
            for name, change in found
        ),
    )


def costs(difference: Difference) -> Table:
    """First answer, memory and file in both runs: shown, and not judged."""
    return Table(
        title="Costs, not judged",
        headers=("candidate", "first answer", "memory", "file"),
        rows=tuple(
            (
                item.name,
                _cost(item.cold_start_s, seconds),
                _cost(item.memory_bytes, size),
                _cost(item.model_bytes, size),
            )
            for item in difference.candidates
        ),
    )


def lost(difference: Difference) -> Table | None:
    """What the base has and the later run has not, and why; `None` where nothing is missing."""
    if not difference.lost:
        return None
    return Table(
        title=f"In {difference.base}, and not or not wholly in {difference.later}",
        headers=("candidate", "why", ""),
        rows=tuple((item.name, item.reason, "regressed" if item.failed else "not judged") for item in difference.lost),
    )


def controls(difference: Difference) -> str:
    """What the A/A control of each run says."""
    base, later = (control or "none" for control in (difference.base_control, difference.later_control))
    noisy = {Decision.FASTER, Decision.SLOWER} & {difference.base_control, difference.later_control}
    advice = ": do not trust small differences" if noisy else ""
    return f"A/A controls: {base} in {difference.base}, {later} in {difference.later}{advice}."


def reading(differences: Differences) -> tuple[str, ...]:
    """How to read the tables."""
    bounds = differences.bounds
    return (
        f"{differences.tests} times were held against the bound of {100 * bounds.slowdown_fraction:g} %. `regressed`: "
        "the interval lies wholly beyond it, and Holm's adjustment for so many tests leaves that standing. `within`: "
        "the interval lies wholly below it.",
        "The intervals are Student's, over processes; they do not hold what differs from day to day on one machine.",
        "Accuracy regressed where more of these very examples are wrong than the bound allows; the interval is about "
        "other examples like them.",
    )


def factor(found: Factor | None) -> str:
    """`1.08× [1.05–1.12]`."""
    if found is None:
        return DASH
    if found.low is None or found.high is None:
        return f"{found.factor:.2f}× [too few runs]"
    return f"{found.factor:.2f}× [{found.low:.2f}–{found.high:.2f}]"


def _workloads(difference: Difference) -> tuple[str, ...]:
    return tuple(dict.fromkeys(speed.workload for item in difference.candidates for speed in item.speeds))


def _judged(speed: SpeedChange | None) -> str:
    if speed is None:
        return DASH
    if speed.outcome is Outcome.YARDSTICK:
        return f"1 by definition\n{speed.outcome}"
    return f"{factor(speed.judged)}\n{speed.outcome}"


def _regressions(difference: Difference) -> list[str]:
    """What regressed, with its figures."""
    found = []
    for item in difference.candidates:
        found += [
            f"{item.name} at {speed.workload} takes {factor(speed.judged)} as long (p {speed.p_value:.2g})"
            for speed in item.speeds
            if speed.outcome is Outcome.REGRESSED
        ]
        change = item.accuracy
        if change and change.outcome is Outcome.REGRESSED:
            found.append(
                f"{item.name} has {difference.measure} {change.later_fraction:.3f} instead of "
                f"{change.base_fraction:.3f} ({_points(change)} points)"
                + (f", and {change.not_finite} answers are no numbers (NaN or infinite)" if change.not_finite else "")
            )
    found += [f"{item.name} failed: {item.reason}" for item in difference.lost if item.failed]
    return found


def _points(change: AccuracyChange) -> str:
    points = f"{100 * change.difference:+.1f}"
    if change.low is None or change.high is None:
        return points
    return f"{points} [{100 * change.low:+.1f} to {100 * change.high:+.1f}]"


def _cost(pair: tuple[Number | None, Number | None], show: Callable[[Number | None], str]) -> str:
    base, later = pair
    ratio = f"\n{later / base:.2f}×" if base and later is not None else ""
    return f"{show(base)} → {show(later)}{ratio}"
