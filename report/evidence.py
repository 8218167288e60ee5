"""What the records that answer the newest question say of each candidate."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import exp, log
from statistics import fmean, median

from artifact.intervals import accuracy_interval
from measure.core_distance import CoreDistance
from measure.cost import next_seconds
from measure.pairing import base_of, log_gains, log_speeds, looks, pass_times
from measure.percentiles import least_samples, upper_bound
from measure.plan import Budget
from measure.records import BlockSamples, Entrant, Failure, Measurement, Overhead, Quality, Record, Role, Session
from measure.statistics import Decision, LogRatio, decide, pass_seconds
from measure.workload import WorkloadSpec
from report.policy import Objective, Policy
from report.verdict import Gate, Noise, QualityResult, Ratio, Row, TextResult, WorkloadResult

BUSY = 0.1
"""Share of the CPU that others may use before it is worth a warning."""

APART = 0.2
"""Share of the looks with CPUs apart that is worth a warning."""

PERCENTILES = {"p90_s": 0.90, "p95_s": 0.95, "p99_s": 0.99}


class Evidence:
    """The records that answer the newest question, indexed."""

    def __init__(self, records: Sequence[Record], policy: Policy) -> None:
        every = [record for record in records if isinstance(record, Session)]
        if not every:
            raise ValueError("no session was recorded")
        self.policy = policy
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
        self.target = _objective_workloads(self.specs.values(), policy.objective)
        self._control = next((entrant for entrant in self.by_entrant if entrant.role is Role.CONTROL), None)
        control = self._control_speeds()
        self._overall = self._speeds(self.target) | control.get(self.target, {})
        self._by_workload = {name: self._speeds((name,)) | control.get((name,), {}) for name in self.shapes}

    @property
    def rows(self) -> list[Row]:
        """What was measured, then what could not be."""
        return [self._measured_row(entrant) for entrant in self.by_entrant] + self._failed_rows()

    @property
    def rounds(self) -> tuple[int, int]:
        """Fewest and most rounds of a process: fewer than planned where the time was over."""
        found = {len({block.round for block in item.blocks}) for items in self.by_entrant.values() for item in items}
        found = found or {self.session.plan.rounds}
        return min(found), max(found)

    @property
    def tokenizer_texts_per_s(self) -> float | None:
        """Texts a second that the tokenizer can do alone; `None` where no workload starts from texts."""
        floor_s = next((found for item in self.sessions if (found := item.tokenizer_floor_s)), None)
        name = self.plain or self.overlapped
        return self.specs[name].texts / floor_s if name and floor_s else None

    @property
    def overhead(self) -> Overhead | None:
        """What a language model's tokens take besides any engine, as the last session saw it."""
        return next((found for item in reversed(self.sessions) if (found := item.overhead)), None)

    def _measured_row(self, entrant: Entrant) -> Row:
        measurements = self.by_entrant[entrant]
        weights = measurements[-1].model_bytes
        scores = [found for item in measurements for found in item.quality]
        quality = _judge_quality(entrant.name, scores, 1 - self.policy.max_accuracy_drop, self.session.reference)
        pss = [
            item.memory.pss_bytes - item.baseline_memory.pss_bytes
            for item in measurements
            if item.memory.pss_bytes is not None and item.baseline_memory.pss_bytes is not None
        ]
        device = [
            known for item in measurements for known in (item.device_bytes, item.peak_device_bytes) if known is not None
        ]
        processes = len({(item.session, item.replicate) for item in measurements})
        held_bytes = round(median(item.memory.rss_bytes - item.baseline_memory.rss_bytes for item in measurements))
        workloads = tuple(self._workload(entrant, name) for name in self.shapes)
        objections = (
            _objection(quality, self.session.judged.measure, processes, self.session.plan.replicates),
            _over_limit(self.policy, [item for item in workloads if item.workload in self.target], held_bytes, weights),
        )
        return Row(
            name=entrant.name,
            runtime=entrant.candidate.runtime,
            precision=entrant.candidate.precision,
            role=entrant.role,
            measured=True,
            reason=None if entrant.role is Role.CONTROL else next(filter(None, objections), None),
            remedy=None,
            portable=measurements[-1].portable,
            processes=processes,
            workloads=workloads,
            overall=self._overall.get(entrant),
            from_text=self._from_text(entrant),
            quality=quality,
            cold_start_s=median(item.cold_start.total_s for item in measurements),
            cold_starts_s=tuple(item.cold_start.total_s for item in measurements),
            first_run_s=median(item.cold_start.first_run_s for item in measurements),
            process_s=next_seconds(measurements, self.session.plan),
            memory_bytes=held_bytes,
            memory_pss_bytes=round(median(pss)) if pss else None,
            device_bytes=max(device, default=None),
            model_bytes=weights,
            step_bytes=measurements[-1].step_bytes,
            model_sha256=measurements[-1].model_sha256,
            engine=f"{measurements[-1].info.engine} {measurements[-1].info.engine_version}",
            info=measurements[-1].info,
            executed=next((item.executed for item in measurements if item.executed), None),
        )

    def _failed_rows(self) -> list[Row]:
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

    def against(self, base: Row, rows: Sequence[Row]) -> tuple[Ratio | None, ...]:
        """Speed of measured rows as a multiple of another one's, judged together; `None` where they share no round."""
        anchor = self._entrant(base)
        return tuple(self._ratios([self._log_ratio(self._entrant(row), self.target, anchor) for row in rows]))

    def leads(self, pairs: Sequence[tuple[Row, Row, str]]) -> tuple[Ratio | None, ...]:
        """Speed of one measured row as a multiple of another one's on a workload, for each such pair, all judged
        together; `None` where the two share no round."""
        found = ((self._entrant(one), (workload,), self._entrant(other)) for one, other, workload in pairs)
        return tuple(self._ratios([self._log_ratio(*pair) for pair in found]))

    @property
    def noise(self) -> Noise | None:
        """How unevenly the anchor ran; `None` where it did not."""
        if self.anchor is None:
            return None
        items = sorted(self.by_entrant[self.anchor], key=lambda item: (item.finished_utc, item.replicate))
        spreads = [
            spread
            for item in items
            for block in item.blocks
            if len(self.shapes[block.workload]) == 1 and (spread := _spread(block.samples_s)) is not None
        ]
        if not spreads:
            return None
        first, last = (self._levels(items[place]) for place in (0, -1))
        changes = [log(last[name] / first[name]) for name in first.keys() & last.keys()]
        return Noise(
            call_fraction=median(spreads),
            drift_fraction=exp(fmean(changes)) - 1 if len(items) > 1 and changes else None,
            cores=CoreDistance.of([ns for items in self.by_entrant.values() for item in items for ns in looks(item)]),
        )

    def _levels(self, item: Measurement) -> dict[str, float]:
        """Median seconds of a pass of one process, by workload."""
        by_workload: defaultdict[str, list[float]] = defaultdict(list)
        for (name, _), pass_s in pass_times(item, self.shapes).items():
            by_workload[name].append(pass_s)
        return {name: median(values) for name, values in by_workload.items()}

    @property
    def control(self) -> Decision | None:
        """The most alarming decision on the A/A control, overall or on a workload: a difference where there is none."""
        if self._control is None:
            return None
        found = [speeds.get(self._control) for speeds in (self._overall, *self._by_workload.values())]
        decisions = {ratio.decision if ratio else Decision.INCONCLUSIVE for ratio in found}
        order = (Decision.FASTER, Decision.SLOWER, Decision.INCONCLUSIVE, Decision.EQUIVALENT)
        return next(decision for decision in order if decision in decisions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the figures less certain than they look."""
        found = []
        if self.control is None:
            found.append("there is no A/A control, so the noise of this machine is unknown")
        elif self.control in (Decision.FASTER, Decision.SLOWER):
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
        cores = self.noise.cores if self.noise else None
        if cores and cores.apart_fraction > APART:
            found.append(
                f"two CPUs lay apart in {cores.apart_fraction:.0%} of the looks: if the host can, let it keep this "
                "machine's CPUs in one core complex"
            )
        if self.session.machine.governor == "powersave":
            found.append("the CPU's governor is powersave, so its frequency wanders: set it to performance")
        restless = [entrant.name for entrant, items in self.by_entrant.items() if _restless(items)]
        if restless:
            found.append(f"most warm-ups did not become level within their time for {', '.join(sorted(restless))}")
        scores = [score for items in self.by_entrant.values() for item in items for score in item.quality]
        references = {score.reference for score in scores}
        found += sorted({sentence for score in scores if (sentence := _worse_than_the_commonest(score))})
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
        calls = [sample for block in blocks for sample in block.samples_s]
        on_device = [pass_seconds(block.device_samples_s, shapes) for block in blocks if block.device_samples_s]
        return WorkloadResult(
            workload=workload,
            batch_s=self._pass_s(entrant, workload) / batches,
            device_s=median(on_device) / batches if on_device else None,
            samples=len(calls),
            energy_j=_energy_of_a_call(blocks),
            speed=self._by_workload[workload].get(entrant),
            tokens=self.specs[workload].tokens,
            phase=self.specs[workload].phase,
            **({} if self.specs[workload].from_text else _slowest(calls)),
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
        found = log_gains(self.by_entrant[entrant], self.shapes, plain, overlapped)
        return self._ratios([LogRatio.of(found) if found else None])[0]

    def _speeds(self, workloads: tuple[str, ...]) -> dict[Entrant, Ratio]:
        """Speed of the candidates against the anchor, judged together."""
        family = [entrant for entrant in self.by_entrant if entrant.role is Role.CANDIDATE]
        ratios = self._ratios([self._log_ratio(entrant, workloads, self.anchor) for entrant in family])
        return {entrant: ratio for entrant, ratio in zip(family, ratios, strict=True) if ratio}

    def _control_speeds(self) -> dict[tuple[str, ...], dict[Entrant, Ratio]]:
        """The control's speed over the objective's workloads and on each one, judged together: none may differ."""
        if self._control is None:
            return {}
        looks = dict.fromkeys((self.target, *((name,) for name in self.shapes)))
        ratios = self._ratios([self._log_ratio(self._control, look, self.anchor) for look in looks])
        return {look: {self._control: ratio} for look, ratio in zip(looks, ratios, strict=True) if ratio}

    def _log_ratio(self, entrant: Entrant, workloads: Sequence[str], base: Entrant | None) -> LogRatio | None:
        if base is None:
            return None
        found = log_speeds(self.by_entrant[entrant], base_of(self.by_entrant, base, entrant), self.shapes, workloads)
        return LogRatio.of(found) if found else None

    @staticmethod
    def _ratios(family: Sequence[LogRatio | None]) -> list[Ratio | None]:
        """Ratios that are looked at together, with their decisions; `None` stays `None`."""
        decisions = iter(decide([item for item in family if item is not None]))
        return [None if item is None else _ratio(item, next(decisions)) for item in family]


def _ratio(found: LogRatio, decision: Decision) -> Ratio:
    interval = found.interval()
    return Ratio(
        ratio=interval.estimate,
        low=interval.low,
        high=interval.high,
        decision=decision,
        more_processes=found.more_replicates(),
    )


def _objective_workloads(specs: Iterable[WorkloadSpec], objective: Objective) -> tuple[str, ...]:
    """The workloads whose speed the objective is about."""
    known = tuple(specs)
    pick = {Objective.LATENCY: min, Objective.THROUGHPUT: max}.get(objective)
    if pick is None:
        return tuple(spec.name for spec in known)
    size = pick(spec.batch_size for spec in known)
    return tuple(spec.name for spec in known if spec.batch_size == size)


def _spread(samples_s: Sequence[float]) -> float | None:
    """Median absolute deviation as a coefficient of variation of normal noise; `None` for fewer than three calls."""
    if len(samples_s) < 3:
        return None
    middle = median(samples_s)
    return 1.4826 * median(abs(sample - middle) for sample in samples_s) / middle


def _worse_than_the_commonest(score: Quality) -> str | None:
    """Said where the reference itself is right less often than who always says the commonest label, so that agreeing
    with it is worth nothing."""
    if score.commonest_fraction is None:
        return None
    right = round(score.reference_accuracy_fraction * score.examples)
    if accuracy_interval(right, score.examples).high >= score.commonest_fraction:
        return None
    return (
        f"{score.reference} itself is right in {score.reference_accuracy_fraction:.0%} of the examples, and who always "
        f"says their commonest label in {score.commonest_fraction:.0%}: see that the labels of model and data mean the "
        "same, in the same order"
    )


def _restless(items: Sequence[Measurement]) -> bool:
    levels = [warm_up.level for item in items for warm_up in item.warm_ups]
    return sum(levels) < len(levels) / 2


def _tokenise_fraction(blocks: Sequence[BlockSamples]) -> float:
    return median(
        spent / sample for block in blocks for spent, sample in zip(block.tokenise_s, block.samples_s, strict=True)
    )


def _judge_quality(name: str, scores: Sequence[Quality], kept_fraction: float, reference: str) -> QualityResult | None:
    """Apply the gate to the way of batching with the lowest accuracy; only the reference's answers can open it, and for
    the reference itself it is open."""
    if not scores:
        return None
    worst = min(scores, key=lambda score: (-score.not_finite, score.accuracy_fraction))
    difference = worst.difference
    near = [score.neighbours_fraction for score in scores if score.neighbours_fraction is not None]
    least = kept_fraction * worst.reference_accuracy_fraction
    low = difference.low if difference.low is not None else -1.0
    high = difference.high if difference.high is not None else 1.0
    if worst.reference != reference:
        gate = Gate.UNKNOWN
    elif worst.accuracy_fraction < least or worst.not_finite:
        gate = Gate.FAILED
    elif name != reference and worst.reference_accuracy_fraction + low < least:
        gate = Gate.PASSED_UNSURE
    else:
        gate = Gate.PASSED
    return QualityResult(
        gate=gate,
        reference=worst.reference,
        batching=_batching(worst),
        examples=worst.examples,
        texts=worst.by_text.texts if worst.by_text else None,
        accuracy_fraction=worst.accuracy_fraction,
        floor_fraction=least,
        difference=difference.estimate,
        difference_low=low,
        difference_high=high,
        agreement_fraction=min(score.agreement_fraction for score in scores),
        not_finite=worst.not_finite,
        perplexity=worst.perplexity,
        reference_perplexity=worst.reference_perplexity,
        neighbours_fraction=min(near, default=None),
        flips={_batching(score): round((1 - score.agreement_fraction) * score.examples) for score in scores},
    )


def _batching(score: Quality) -> str:
    return "served" if score.batch_size is None else str(score.batch_size)


def _energy_of_a_call(blocks: Sequence[BlockSamples]) -> float | None:
    found = [block.energy_j / len(block.samples_s) for block in blocks if block.energy_j is not None]
    return median(found) if found else None


def _slowest(calls: Sequence[float]) -> dict[str, float | None]:
    """Bounds of what is exceeded by one call in ten, in twenty and in a hundred."""
    return {name: upper_bound(calls, quantile) for name, quantile in PERCENTILES.items()}


def _objection(quality: QualityResult | None, measure: str, processes: int, planned: int) -> str | None:
    """What a measured candidate's answers or its lack of measurements say against it, or `None`."""
    if quality is None:
        return "its answers were not scored"
    if quality.not_finite:
        return f"{quality.not_finite} of {quality.examples} answers are no numbers (NaN or infinite)"
    if quality.gate is Gate.FAILED:
        return (
            f"{measure} {quality.accuracy_fraction:.3f} (batches: {quality.batching}) is below the floor "
            f"{quality.floor_fraction:.3f}"
        )
    if quality.gate is Gate.UNKNOWN:
        return "its answers were compared with another candidate's, because the reference has not answered here"
    if processes < planned:
        return f"only {processes} of {planned} processes were measured"
    return None


def _over_limit(policy: Policy, workloads: Sequence[WorkloadResult], held_bytes: int, model_bytes: int) -> str | None:
    """The first limit of the policy that a candidate does not keep, or is not known to keep; `None` if it keeps all."""
    if policy.max_size_bytes is not None and model_bytes > policy.max_size_bytes:
        return f"its file has {model_bytes / 1e6:.1f} MB, and {policy.max_size_bytes / 1e6:.1f} MB are allowed"
    if policy.max_memory_bytes is not None and held_bytes > policy.max_memory_bytes:
        return f"it holds {held_bytes / 1e6:.0f} MB of memory, and {policy.max_memory_bytes / 1e6:.0f} MB are allowed"
    if policy.max_p95_s is None:
        return None
    for result in workloads:
        if result.p95_s is None:
            return (
                f"its p95 at {result.workload} is not known from {result.samples} calls, and {least_samples(0.95)} are "
                f"needed: measure with a larger budget (--budget {Budget.STANDARD} or {Budget.RIGOROUS})"
            )
        if result.p95_s > policy.max_p95_s:
            return (
                f"its p95 at {result.workload} may be {1e3 * result.p95_s:.1f} ms, and {1e3 * policy.max_p95_s:.1f} ms "
                "are allowed"
            )
    return None
