"""The gate first, then speed: which candidate to ship, and why not the others."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import log
from statistics import median

import msgspec

from measure.machine import Machine
from measure.records import BlockSamples, Entrant, Failure, Measurement, Quality, Record, Role, Session
from measure.statistics import Decision, accuracy_difference, decide, pass_seconds, ratio_interval
from runtimes.base import Executed, RuntimeInfo

SCHEMA_VERSION = 1
BUSY = 0.1
"""Share of the CPU that others may use before it is worth a warning."""

FLOOR = 0.99
"""Share of the reference's accuracy that a candidate must keep (MLPerf's usual target)."""


class Gate(StrEnum):
    """The rule on quality. `passed_unsure`: above the floor on these examples, but they are too few to exclude less."""

    PASSED = "passed"
    PASSED_UNSURE = "passed, not certain"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Speed as a multiple of the baseline's, with its 95 % interval and what that says."""

    ratio: float
    low: float | None
    high: float | None
    decision: Decision


class TextResult(msgspec.Struct, frozen=True, kw_only=True):
    """From raw text to label: texts a second where the stages take turns and where they overlap; `None` where that was
    not asked for.

    `tokenise_fraction` is the tokenizer's share of the time where they take turns. `gain` is the speed of overlapping
    as a multiple of taking turns, paired by round within each process.
    """

    texts_per_s: float | None
    tokenise_fraction: float | None
    overlapped_texts_per_s: float | None
    gain: Ratio | None


class WorkloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One workload: median seconds of a batch over all processes, and the paired ratio.

    `speed` is `None` for the baseline, and where nothing ran beside it. `device_s` is the same median by the clock of
    the device alone, `None` where the host is the device.
    """

    workload: str
    batch_s: float
    samples: int
    speed: Ratio | None
    device_s: float | None = None

    @property
    def overhead_fraction(self) -> float | None:
        """Share of the time from host to host that is copying and overhead; `None` where the host is the device."""
        return None if self.device_s is None else max(0.0, 1 - self.device_s / self.batch_s)


class QualityResult(msgspec.Struct, frozen=True, kw_only=True):
    """The worst of the ways to batch that were scored: `batching` is `served` (by length, as an artifact does) or a
    batch size. `flips` counts for each way the labels that differ from the reference's."""

    gate: Gate
    reference: str
    batching: str
    examples: int
    accuracy_fraction: float
    floor_fraction: float
    difference: float
    difference_low: float
    difference_high: float
    agreement_fraction: float
    flips: dict[str, int]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one candidate. `reason` says why it cannot be recommended, or was not measured."""

    name: str
    runtime: str
    precision: str
    role: Role
    measured: bool
    reason: str | None
    remedy: str | None
    portable: bool = False
    processes: int = 0
    workloads: tuple[WorkloadResult, ...] = ()
    overall: Ratio | None = None
    from_text: TextResult | None = None
    quality: QualityResult | None = None
    cold_start_s: float | None = None
    memory_uss_bytes: int | None = None
    memory_pss_bytes: int | None = None
    device_bytes: int | None = None
    model_bytes: int | None = None
    model_sha256: str | None = None
    engine: str | None = None
    info: RuntimeInfo | None = None
    executed: Executed | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`verdict.json`.

    `fastest` passed the gate; `deployable` did too and packs for CPUs without torch. `close` are other passing
    candidates whose speed cannot be told from the deployable one's. `tokenizer_texts_per_s` is what the tokenizer can
    do with no engine beside it.
    """

    schema_version: int
    baseline: str | None
    fastest: str | None
    deployable: str | None
    close: tuple[str, ...]
    control: Decision | None
    floor: float
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    machine: Machine
    threads: int
    budget: str
    replicates: int
    rounds: int
    data: str
    examples: int
    sessions: int
    harness_floor_s: float | None
    measured_utc: str
    versions: dict[str, str]
    tokenizer_texts_per_s: float | None = None


def judge(records: Sequence[Record], floor: float = FLOOR) -> Verdict:
    """Derive the verdict from raw records.

    Only measurements that answer the newest session's question count, whichever session made them. Raises
    `ValueError` when there is no session at all.
    """
    comparison = _Records(records)
    rows = [comparison.measured_row(entrant, floor) for entrant in comparison.entrants]
    rows += comparison.failed_rows()
    rows.sort(key=_order)
    passing = [row for row in rows if row.measured and row.reason is None and row.role is not Role.CONTROL]
    deployable = [row for row in passing if row.portable]
    control = next((row for row in rows if row.role is Role.CONTROL and row.measured), None)
    best = _fastest(deployable)
    session = comparison.session
    return Verdict(
        schema_version=SCHEMA_VERSION,
        baseline=comparison.anchor.name if comparison.anchor else None,
        fastest=fastest.name if (fastest := _fastest(passing)) else None,
        deployable=best.name if best else None,
        close=tuple(row.name for row in deployable if best and row is not best and comparison.is_close(best, row)),
        control=_worst([result.speed for result in control.workloads]) if control else None,
        floor=floor,
        rows=tuple(rows),
        warnings=comparison.warnings(control),
        machine=session.machine,
        threads=session.threads,
        budget=session.plan.name,
        replicates=session.plan.replicates,
        rounds=session.plan.rounds,
        data=session.data,
        examples=session.examples,
        sessions=len(comparison.sessions),
        harness_floor_s=next((found for item in comparison.sessions if (found := item.harness_floor_s)), None),
        measured_utc=(comparison.sessions or [session])[-1].started_utc,
        versions=session.versions,
        tokenizer_texts_per_s=comparison.tokenizer_texts_per_s,
    )


def _order(row: Row) -> tuple[int, float, str]:
    """Anchor and its control first, then the measured by speed, then the rest."""
    if not row.measured:
        return 3, 0.0, row.name
    rank = {Role.ANCHOR: 0, Role.CONTROL: 1}.get(row.role, 2)
    return rank, -(row.overall.ratio if row.overall else 0.0), row.name


def _fastest(rows: Sequence[Row]) -> Row | None:
    """The highest overall ratio; the anchor's is 1 by definition."""
    return max(rows, key=_speed, default=None)


def _speed(row: Row) -> float:
    if row.role is Role.ANCHOR:
        return 1.0
    return row.overall.ratio if row.overall else 0.0


def _worst(speeds: Sequence[Ratio | None]) -> Decision:
    """The most alarming of an A/A control's decisions: a difference where there is none."""
    decisions = {speed.decision if speed else Decision.INCONCLUSIVE for speed in speeds}
    order = (Decision.FASTER, Decision.SLOWER, Decision.INCONCLUSIVE, Decision.EQUIVALENT)
    return next((decision for decision in order if decision in decisions), Decision.INCONCLUSIVE)


class _Records:
    """The records that answer the newest question, indexed."""

    def __init__(self, records: Sequence[Record]) -> None:
        every = [record for record in records if isinstance(record, Session)]
        if not every:
            raise ValueError("no session was recorded")
        self.session = every[-1]
        self.by_entrant: dict[Entrant, list[Measurement]] = defaultdict(list)
        for record in records:
            if isinstance(record, Measurement) and record.fingerprint == self.session.asked.get(record.entrant.name):
                self.by_entrant[record.entrant].append(record)
        names = {item.session for items in self.by_entrant.values() for item in items}
        self.sessions = [session for session in every if session.session in names]
        self.failures = [
            record for record in records if isinstance(record, Failure) and record.session == self.session.session
        ]
        self.specs = {spec.name: spec for spec in self.session.workloads}
        self.shapes = {name: spec.sample_shapes for name, spec in self.specs.items()}
        from_text = {name: spec for name, spec in self.specs.items() if spec.from_text}
        self.plain = next((name for name, spec in from_text.items() if not spec.is_overlapped), None)
        self.overlapped = next((name for name, spec in from_text.items() if spec.is_overlapped), None)
        self.anchor = next((entrant for entrant in self.by_entrant if entrant.role is Role.ANCHOR), None)

    @property
    def entrants(self) -> list[Entrant]:
        return list(self.by_entrant)

    @property
    def tokenizer_texts_per_s(self) -> float | None:
        """Texts a second that the tokenizer can do alone; `None` where no workload starts from texts."""
        floor_s = next((found for item in self.sessions if (found := item.tokenizer_floor_s)), None)
        name = self.plain or self.overlapped
        return self.specs[name].texts / floor_s if name and floor_s else None

    def measured_row(self, entrant: Entrant, floor: float) -> Row:
        measurements = self.by_entrant[entrant]
        scores = [found for item in measurements for found in item.quality]
        quality = _judge_quality(scores, floor, self.session.reference)
        pss = [
            item.memory.pss_bytes - item.baseline_memory.pss_bytes
            for item in measurements
            if item.memory.pss_bytes is not None and item.baseline_memory.pss_bytes is not None
        ]
        device = [item.peak_device_bytes for item in measurements if item.peak_device_bytes is not None]
        processes = len({(item.session, item.replicate) for item in measurements})
        return Row(
            name=entrant.name,
            runtime=entrant.candidate.runtime,
            precision=entrant.candidate.precision,
            role=entrant.role,
            measured=True,
            reason=_objection(quality, processes, self.session.plan.replicates, entrant.role),
            remedy=None,
            portable=measurements[-1].portable,
            processes=processes,
            workloads=tuple(self._workload(entrant, name) for name in self.shapes),
            overall=self._ratio(entrant, tuple(self.shapes)),
            from_text=self._from_text(entrant),
            quality=quality,
            cold_start_s=median(item.cold_start.total_s for item in measurements),
            memory_uss_bytes=round(
                median(item.memory.uss_bytes - item.baseline_memory.uss_bytes for item in measurements)
            ),
            memory_pss_bytes=round(median(pss)) if pss else None,
            device_bytes=max(device, default=None),
            model_bytes=measurements[-1].model_bytes,
            model_sha256=measurements[-1].model_sha256,
            engine=f"{measurements[-1].info.engine} {measurements[-1].info.engine_version}",
            info=measurements[-1].info,
            executed=next((item.executed for item in measurements if item.executed), None),
        )

    def failed_rows(self) -> list[Row]:
        """What could not be measured: the last failure of each candidate that has no measurement."""
        measured = {entrant.candidate.id for entrant in self.by_entrant}
        last = {(failure.name, failure.role): failure for failure in self.failures}
        return [
            Row(
                name=name,
                runtime=failure.runtime,
                precision=failure.precision or "",
                role=failure.role,
                measured=False,
                reason=failure.reason if failure.stage in ("probe", "model") else f"{failure.stage}: {failure.reason}",
                remedy=failure.hint or None,
            )
            for (name, _), failure in last.items()
            if name not in measured
        ]

    def is_close(self, best: Row, other: Row) -> bool:
        """Whether the speeds of two candidates cannot be told apart by more than 2 %."""
        ratio = self._ratio(self._entrant(best), tuple(self.shapes), self._entrant(other))
        return ratio is None or ratio.decision in (Decision.EQUIVALENT, Decision.INCONCLUSIVE)

    def warnings(self, control: Row | None) -> tuple[str, ...]:
        """What makes the figures less certain than they look."""
        found = []
        if control is None:
            found.append("there is no A/A control, so the noise of this machine is unknown")
        elif _worst([result.speed for result in control.workloads]) in (Decision.FASTER, Decision.SLOWER):
            found.append(
                "the A/A control shows a difference between two runs of the same thing: close other programs, measure "
                "again, and do not trust differences of this size"
            )
        loads = [session.load for session in self.sessions if session.load]
        busy = max((load.busy_fraction for load in loads), default=0.0)
        if busy > BUSY:
            found.append(f"other programs used {busy:.0%} of the CPU just before measuring: close them")
        stolen = max((load.steal_fraction or 0.0 for load in loads), default=0.0)
        if stolen > BUSY:
            found.append(f"other virtual machines took {stolen:.0%} of the CPU just before measuring")
        restless = [entrant.name for entrant, items in self.by_entrant.items() if _restless(items)]
        if restless:
            found.append(f"most warm-ups did not become level within their time for {', '.join(sorted(restless))}")
        references = {score.reference for items in self.by_entrant.values() for item in items for score in item.quality}
        found += [
            f"answers are compared with those of {name}, because {self.session.reference} has not answered here"
            for name in sorted(references - {self.session.reference})
        ]
        return tuple(found)

    def _entrant(self, row: Row) -> Entrant:
        return next(entrant for entrant in self.by_entrant if entrant.name == row.name)

    def _blocks(self, entrant: Entrant, workload: str) -> list[BlockSamples]:
        return [block for item in self.by_entrant[entrant] for block in item.blocks if block.workload == workload]

    def _pass_s(self, entrant: Entrant, workload: str) -> float:
        """Seconds of one pass, the median over all blocks of all processes."""
        shapes = self.shapes[workload]
        return median(pass_seconds(block.samples_s, shapes) for block in self._blocks(entrant, workload))

    def _workload(self, entrant: Entrant, workload: str) -> WorkloadResult:
        blocks, batches = self._blocks(entrant, workload), len(self.specs[workload].shapes)
        shapes = self.shapes[workload]
        on_device = [pass_seconds(block.device_samples_s, shapes) for block in blocks if block.device_samples_s]
        return WorkloadResult(
            workload=workload,
            batch_s=self._pass_s(entrant, workload) / batches,
            device_s=median(on_device) / batches if on_device else None,
            samples=sum(len(block.samples_s) for block in blocks),
            speed=self._ratio(entrant, (workload,)),
        )

    def _from_text(self, entrant: Entrant) -> TextResult | None:
        """What the workloads that start from raw texts tell; `None` where there are none."""
        plain, ahead = self.plain, self.overlapped
        if not plain and not ahead:
            return None
        return TextResult(
            texts_per_s=self.specs[plain].texts / self._pass_s(entrant, plain) if plain else None,
            tokenise_fraction=_tokenise_fraction(self._blocks(entrant, plain)) if plain else None,
            overlapped_texts_per_s=self.specs[ahead].texts / self._pass_s(entrant, ahead) if ahead else None,
            gain=self._gain(entrant, plain, ahead) if plain and ahead else None,
        )

    def _gain(self, entrant: Entrant, plain: str, overlapped: str) -> Ratio | None:
        """Speed of overlapped stages against stages that take turns, in the same rounds of the same processes."""
        replicates = []
        for item in self.by_entrant[entrant]:
            pass_s = _pass_times(item, self.shapes)
            rounds = sorted(number for name, number in pass_s if name == plain and (overlapped, number) in pass_s)
            replicates.append([log(pass_s[plain, number] / pass_s[overlapped, number]) for number in rounds])
        return self._interval(replicates)

    def _ratio(self, entrant: Entrant, workloads: Sequence[str], base: Entrant | None = None) -> Ratio | None:
        """Speed against `base` (the anchor) in rounds that ran interleaved; the geometric mean over the workloads."""
        base = base or self.anchor
        if base is None or entrant == base:
            return None
        theirs = {(item.session, item.replicate): _pass_times(item, self.shapes) for item in self.by_entrant[base]}
        replicates = []
        for item in self.by_entrant[entrant]:
            mine, other = _pass_times(item, self.shapes), theirs.get((item.session, item.replicate))
            if other is None:
                continue
            rounds = {number for _, number in mine} & {number for _, number in other}
            logs = [
                sum(log(other[name, number] / mine[name, number]) for name in workloads) / len(workloads)
                for number in sorted(rounds)
                if all((name, number) in mine and (name, number) in other for name in workloads)
            ]
            replicates.append(logs)
        return self._interval(replicates)

    def _interval(self, replicates: Sequence[Sequence[float]]) -> Ratio | None:
        """The ratio whose logarithms these are; `None` where no round has both sides."""
        paired = [logs for logs in replicates if logs]
        if not paired:
            return None
        interval = ratio_interval(paired, self.session.plan.seed)
        return Ratio(ratio=interval.estimate, low=interval.low, high=interval.high, decision=decide(interval))


def _restless(items: Sequence[Measurement]) -> bool:
    levels = [warm_up.level for item in items for warm_up in item.warm_ups]
    return sum(levels) < len(levels) / 2


def _pass_times(item: Measurement, shapes: Mapping[str, Sequence[tuple[int, int]]]) -> dict[tuple[str, int], float]:
    """Seconds of a pass for each workload and round of one process."""
    return {
        (block.workload, block.round): pass_seconds(block.samples_s, shapes[block.workload]) for block in item.blocks
    }


def _tokenise_fraction(blocks: Sequence[BlockSamples]) -> float:
    return median(
        spent / sample for block in blocks for spent, sample in zip(block.tokenise_s, block.samples_s, strict=True)
    )


def _judge_quality(scores: Sequence[Quality], floor: float, reference: str) -> QualityResult | None:
    """Apply the gate to the way of batching with the lowest accuracy; only the reference's answers can open it."""
    if not scores:
        return None
    worst = min(scores, key=lambda score: score.accuracy_fraction)
    difference = accuracy_difference(worst.wins, worst.losses, worst.examples)
    least = floor * worst.reference_accuracy_fraction
    low = difference.low if difference.low is not None else -1.0
    high = difference.high if difference.high is not None else 1.0
    if worst.reference != reference:
        gate = Gate.UNKNOWN
    elif worst.accuracy_fraction < least:
        gate = Gate.FAILED
    elif worst.reference_accuracy_fraction + low < least:
        gate = Gate.PASSED_UNSURE
    else:
        gate = Gate.PASSED
    return QualityResult(
        gate=gate,
        reference=worst.reference,
        batching=_batching(worst),
        examples=worst.examples,
        accuracy_fraction=worst.accuracy_fraction,
        floor_fraction=least,
        difference=difference.estimate,
        difference_low=low,
        difference_high=high,
        agreement_fraction=min(score.agreement_fraction for score in scores),
        flips={_batching(score): round((1 - score.agreement_fraction) * score.examples) for score in scores},
    )


def _batching(score: Quality) -> str:
    return "served" if score.batch_size is None else str(score.batch_size)


def _objection(quality: QualityResult | None, processes: int, planned: int, role: Role) -> str | None:
    """Why a measured candidate cannot be recommended, or `None`."""
    if role is Role.CONTROL:
        return None
    if quality is None:
        return "its answers were not scored"
    if quality.gate is Gate.FAILED:
        return (
            f"accuracy {quality.accuracy_fraction:.3f} (batches: {quality.batching}) is below the floor "
            f"{quality.floor_fraction:.3f}"
        )
    if quality.gate is Gate.UNKNOWN:
        return "its answers were compared with another candidate's, because the reference has not answered here"
    if processes < planned:
        return f"only {processes} of {planned} processes were measured"
    return None
