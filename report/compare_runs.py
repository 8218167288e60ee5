"""Runs that were measured before, beside each other: pure functions of their records."""

from collections.abc import Mapping, Sequence
from math import exp, log, log1p
from statistics import fmean

import msgspec

from artifact.intervals import paired_difference
from measure.multiple import holm
from measure.proportions import difference_by_reference, unpaired_difference
from measure.records import Quality, Session
from measure.welch import Shift, shift
from report.changes import changes
from report.difference import (
    SCHEMA_VERSION,
    AccuracyChange,
    Basis,
    Bounds,
    CandidateChange,
    Difference,
    Differences,
    Factor,
    Lost,
    Outcome,
    Pairing,
    SpeedChange,
)
from report.measured_run import MeasuredRun, Run

LEVEL = 0.025
"""Of a one-sided test: a single one lies below it just where the whole 95 % interval lies beyond the bound."""

CACHE = "_CACHE_DIR"
"""How the names of environment variables end that say where compiled code is kept."""

_Place = tuple[str, str]
"""A candidate and a workload."""

_Result = tuple[Outcome, float | None]
"""What is said of a place, and the adjusted p-value."""


def compare_runs(base: Run, later: Sequence[Run], bounds: Bounds) -> Differences:
    """Put each later run beside the base. Raises `ValueError` for a run without a session."""
    first = MeasuredRun(base)
    pairs = [_Pair(first, MeasuredRun(run), bounds) for run in later]
    tested = [(pair, place, found) for pair in pairs for place, found in pair.tested().items()]
    limit = log1p(bounds.slowdown_fraction)
    slower = holm([found.p_above(limit) for _, _, found in tested])
    faster = holm([found.p_below(-limit) for _, _, found in tested])
    results: dict[_Pair, dict[_Place, _Result]] = {pair: {} for pair in pairs}
    for (pair, place, found), p_slower, p_faster in zip(tested, slower, faster, strict=True):
        results[pair][place] = _speed_outcome(found, limit, p_slower, p_faster), p_slower
    differences = tuple(pair.difference(results[pair]) for pair in pairs)
    named = [(f"{item.later}: " if len(pairs) > 1 else "", item) for item in differences]
    return Differences(
        schema_version=SCHEMA_VERSION,
        bounds=bounds,
        tests=len(tested),
        differences=differences,
        regressions=tuple(prefix + text for prefix, item in named for text in item.regressions),
        not_shown=tuple(prefix + text for prefix, item in named for text in item.not_shown),
    )


def _speed_outcome(found: Shift, limit: float, p_slower: float, p_faster: float) -> Outcome:
    if p_slower < LEVEL:
        return Outcome.REGRESSED
    if p_faster < LEVEL:
        return Outcome.IMPROVED
    return Outcome.WITHIN if found.interval[1] <= limit else Outcome.INCONCLUSIVE


class _Pair:
    """Two runs, and what of them can be held against each other."""

    def __init__(self, base: MeasuredRun, later: MeasuredRun, bounds: Bounds) -> None:
        self.base, self.later, self.bounds = base, later, bounds
        self.both = [name for name in base.rows if name in later.rows]
        self.repeated = {name for name in self.both if base.processes(name) & later.processes(name)}
        self.workloads = [name for name, spec in base.workloads.items() if later.workloads.get(name) == spec]
        self.same_data = base.session.data_sha256 == later.session.data_sha256
        self.other_machine = self._unlike_machines()
        self.other_anchor = self._unlike_anchors()
        self.basis, self.reason = self._basis()

    def tested(self) -> dict[_Place, Shift]:
        """How far what is judged has moved, wherever both runs have processes enough to tell."""
        places = [(name, workload) for name in self.both for workload in self.workloads]
        shifts = {place: shift(*self._judged(*place)) for place in places}
        return {place: found for place, found in shifts.items() if found}

    def difference(self, results: Mapping[_Place, _Result]) -> Difference:
        """Everything that is said, given what was found of the tested places."""
        base, later = self.base, self.later
        candidates = tuple(self._candidate(name, results) for name in self.both)
        first = {name: (base.measurements[name][0], later.measurements[name][0]) for name in self.both}
        return Difference(
            base=base.name,
            later=later.name,
            measure=base.verdict.measure,
            anchor=base.anchor if base.anchor == later.anchor else None,
            basis=self.basis,
            reason=self.reason,
            changes=changes(base.session, later.session, first),
            candidates=candidates,
            lost=tuple(found for name in base.rows if (found := self._lost(name))),
            added=tuple(name for name in later.rows if name not in base.rows),
            workloads_lost=tuple(name for name in base.workloads if name not in self.workloads),
            base_control=base.verdict.control,
            later_control=later.verdict.control,
            warnings=(*self._warnings(), *self._drift(candidates)),
        )

    def _unlike_machines(self) -> str:
        """What keeps seconds from being compared; empty where nothing does."""
        base, later = self.base.session, self.later.session
        one, other = base.machine, later.machine
        devices = {
            tuple(run.measurements[name][0].info.device for run in (self.base, self.later)) for name in self.both
        }
        unlike = {
            f"{one.cpu_model} and {other.cpu_model}": one.cpu_model != other.cpu_model,
            "other instruction sets": one.cpu_features != other.cpu_features,
            f"{one.usable_cores} and {other.usable_cores} usable cores": one.usable_cores != other.usable_cores,
            f"{one.system} and {other.system}": one.system.split()[0] != other.system.split()[0],
            f"{base.threads} and {later.threads} threads": base.threads != later.threads,
            **{f"{here} and {there}": here != there for here, there in sorted(devices)},
        }
        found = ", ".join(text for text, differs in unlike.items() if differs)
        return found or ("other machines" if one.identity != other.identity else "")

    def _unlike_anchors(self) -> dict[str, str]:
        """How the anchors differ: one that does not is a yardstick."""
        base, later = self.base, self.later
        if base.anchor is None or base.anchor != later.anchor:
            return {"candidate": f"{base.anchor or 'no anchor'} and {later.anchor or 'no anchor'}"}
        one, other = base.measurements[base.anchor][0], later.measurements[base.anchor][0]
        engines = [f"{item.info.engine} {item.info.engine_version}" for item in (one, other)]
        pythons = [f"Python {run.session.machine.python}" for run in (base, later)]
        unlike = {
            "engine": (" and ".join(engines), engines[0] != engines[1]),
            "weights": ("other weights", one.model_sha256 != other.model_sha256),
            "number type": (f"{one.info.dtype} and {other.info.dtype}", one.info.dtype != other.info.dtype),
            "settings": ("other settings", one.info.options != other.info.options),
            "environment": ("other environment variables", _heeded(base.session) != _heeded(later.session)),
            "python": (" and ".join(pythons), pythons[0] != pythons[1]),
        }
        return {what: text for what, (text, differs) in unlike.items() if differs}

    def _basis(self) -> tuple[Basis, str]:
        """What speed is judged by, and why."""
        anchors = ", ".join(self.other_anchor.values())
        if not self.other_machine and not anchors:
            return Basis.RELATIVE, (
                f"{self.base.anchor} is the same in both runs: where its own seconds changed, the machine did, and "
                "that cancels"
            )
        if not self.other_machine:
            return Basis.SECONDS, (
                f"the machines are alike, and the anchor is no yardstick ({anchors}); a machine that was busier would "
                "look like slower code"
            )
        if not self.other_anchor.keys() & {"candidate", "engine"}:
            return Basis.RELATIVE, (
                f"the machines differ ({self.other_machine}): seconds stand side by side without a verdict, and each "
                f"candidate is held against {self.base.anchor} on its own machine"
            )
        return Basis.NONE, (
            f"the machines differ ({self.other_machine}) and so do the anchors ({anchors}): figures stand side by side "
            "without a verdict"
        )

    def _basis_of(self, name: str) -> Basis:
        is_yardstick = self.basis is Basis.RELATIVE and name == self.base.anchor
        return Basis.NONE if is_yardstick or name in self.repeated else self.basis

    def _judged(self, name: str, workload: str) -> tuple[list[float], list[float]]:
        """What is judged of each process of base and later; nothing where nothing is."""
        match self._basis_of(name):
            case Basis.RELATIVE:
                return self.base.relative_times(name, workload), self.later.relative_times(name, workload)
            case Basis.SECONDS:
                return self.base.times(name, workload), self.later.times(name, workload)
            case Basis.NONE:
                return [], []

    def _candidate(self, name: str, results: Mapping[_Place, _Result]) -> CandidateChange:
        base, later = self.base.rows[name], self.later.rows[name]
        untested = {Basis.NONE: Outcome.NOT_JUDGED}.get(self._basis_of(name), Outcome.INCONCLUSIVE)
        if self.basis is Basis.RELATIVE and name == self.base.anchor and name not in self.repeated:
            untested = Outcome.YARDSTICK
        speeds = [
            self._speed(name, workload, results.get((name, workload), (untested, None))) for workload in self.workloads
        ]
        return CandidateChange(
            name=name,
            speeds=tuple(found for found in speeds if found),
            accuracy=self._accuracy(name),
            cold_start_s=(base.cold_start_s, later.cold_start_s),
            memory_bytes=(base.memory_bytes, later.memory_bytes),
            model_bytes=(base.model_bytes, later.model_bytes),
        )

    def _speed(self, name: str, workload: str, result: _Result) -> SpeedChange | None:
        """`None` where one of the runs has no time for it."""
        base, later = self.base, self.later
        times = base.times(name, workload), later.times(name, workload)
        if not all(times):
            return None
        relative = None
        if base.anchor == later.anchor != name:
            relative = _factor(base.relative_times(name, workload), later.relative_times(name, workload))
        return SpeedChange(
            workload=workload,
            base_batch_s=exp(fmean(times[0])),
            later_batch_s=exp(fmean(times[1])),
            base_speed=base.speed(name, workload),
            later_speed=later.speed(name, workload),
            seconds=None if self.other_machine else _factor(*times),
            relative=relative,
            basis=self._basis_of(name),
            outcome=result[0],
            p_value=result[1],
        )

    def _accuracy(self, name: str) -> AccuracyChange | None:
        """The way of batching that regressed, or else whose accuracy fell most, of those that both runs scored."""
        base, later = self.base.scores(name), self.later.scores(name)
        found = [self._accuracy_by(way, name, base[way], later[way]) for way in base if way in later]
        return min(found, key=lambda item: (item.outcome is not Outcome.REGRESSED, item.difference), default=None)

    def _accuracy_by(self, way: str, name: str, base: Quality, later: Quality) -> AccuracyChange:
        outcome, low, high = Outcome.NOT_JUDGED, None, None
        pairing = self._pairing(base, later)
        if self.same_data and name not in self.repeated:
            right = [round(score.accuracy_fraction * base.examples) for score in (base, later)]
            match pairing:
                case Pairing.SAME:
                    interval = paired_difference(0, 0, base.examples)
                case Pairing.REFERENCE:
                    interval = difference_by_reference(base, later)
                case Pairing.NONE:
                    gains = base.by_text or later.by_text
                    count = gains.texts if gains else base.examples  # as if a text were one decision
                    counted = [round(score.accuracy_fraction * count) for score in (base, later)]
                    interval = unpaired_difference(counted[0], counted[1], count)
            low, high = interval.low, interval.high
            allowed = self.bounds.accuracy_drop_fraction * right[0]
            outcome = _accuracy_outcome(right[0] - right[1], low, allowed, base.examples)
            if later.not_finite > base.not_finite:
                outcome = Outcome.REGRESSED
        return AccuracyChange(
            batching=way,
            base_fraction=base.accuracy_fraction,
            later_fraction=later.accuracy_fraction,
            difference=later.accuracy_fraction - base.accuracy_fraction,
            low=low,
            high=high,
            pairing=pairing,
            not_finite=later.not_finite,
            outcome=outcome,
        )

    def _pairing(self, base: Quality, later: Quality) -> Pairing:
        """What is known of which examples were answered how.

        The reference's answers were the same in both runs where the same weights on the same engine and machine were
        asked the same token ids, and are as often right. Where it was not measured beside them, nothing is known of it.
        """
        one = self.base.measurements.get(base.reference)
        other = self.later.measurements.get(later.reference)
        if (
            not one
            or not other
            or base.reference != later.reference
            or base.reference_accuracy_fraction != later.reference_accuracy_fraction
            or one[0].model_sha256 != other[0].model_sha256
            or one[0].info != other[0].info
            or self.base.session.inputs_sha256 != self.later.session.inputs_sha256
            or self.base.session.data_sha256 != self.later.session.data_sha256
            or self.base.session.machine.identity != self.later.session.machine.identity
            or (base.by_text is None) != (later.by_text is None)
        ):
            return Pairing.NONE
        is_same = base == msgspec.structs.replace(later, seconds_s=base.seconds_s)
        return Pairing.SAME if is_same else Pairing.REFERENCE

    def _lost(self, name: str) -> Lost | None:
        """What the later run did not measure, or not to the end. What failed in the base too is not new."""
        reason = self.later.failure(name)
        if reason is not None:
            return Lost(name=name, reason=reason, failed=self.base.failure(name) is None)
        if name in self.later.rows:
            return None
        asked = name in self.later.session.asked
        return Lost(name=name, reason="asked for, and not finished" if asked else "not asked for", failed=False)

    def _warnings(self) -> list[str]:
        found = [f"{run.name}: {warning}" for run in (self.base, self.later) for warning in run.verdict.warnings]
        if not self.same_data:
            found.append("the data differ, so accuracies are of other examples: they are shown and not judged")
        if self.repeated:
            found.append(f"both runs hold the very same measurements of {', '.join(sorted(self.repeated))}")
        return found

    def _drift(self, candidates: Sequence[CandidateChange]) -> list[str]:
        """Where a yardstick's seconds moved by more than the bound, the machine did."""
        moved = [
            f"{speed.seconds.factor:.2f}× at {speed.workload}"
            for item in candidates
            for speed in item.speeds
            if speed.outcome is Outcome.YARDSTICK
            and speed.seconds
            and abs(log(speed.seconds.factor)) > log1p(self.bounds.slowdown_fraction)
        ]
        if not moved:
            return []
        return [
            f"the machine changed between the runs: {self.base.anchor}, which did not, takes {', '.join(moved)} as "
            "long; that cancels only as far as it slows all candidates alike"
        ]


def _heeded(session: Session) -> dict[str, str]:
    """Environment variables that may decide speed: where compiled code is kept does not."""
    return {name: value for name, value in session.environment.items() if not name.endswith(CACHE)}


def _accuracy_outcome(lost: int, low: float | None, allowed: float, examples: int) -> Outcome:
    """By the answers themselves, which scatter in nothing: `lost` more of these examples are wrong, and `allowed` may
    be. The interval, which is about other examples, tells `within` from `inconclusive`."""
    if lost > allowed + 1e-9:  # ten of a thousand are 1 %, whatever floats make of it
        return Outcome.REGRESSED
    if low is None or low * examples < -allowed:
        return Outcome.INCONCLUSIVE
    return Outcome.IMPROVED if low * examples > allowed else Outcome.WITHIN


def _factor(base: Sequence[float], later: Sequence[float]) -> Factor | None:
    """The factor between two groups of logarithms; `None` where one of them is empty."""
    if not base or not later:
        return None
    found = shift(base, later)
    low, high = [exp(end) for end in found.interval] if found else (None, None)
    return Factor(factor=exp(fmean(later) - fmean(base)), low=low, high=high)
