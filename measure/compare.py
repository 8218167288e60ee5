"""Measure every candidate, interleaved, in fresh processes, and keep each result as soon as it is known."""

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from artifact.examples import Examples
from artifact.precision import Precision
from artifact.predict.cores import usable_cores
from artifact.predict.tokens import TextItem
from artifact.progress import Progress, silent
from artifact.records import fingerprint
from errors import UserError
from measure.adaptive import next_entrants
from measure.core_latency import CoreLatency
from measure.cost import spent_seconds
from measure.judging import assess_of, decisions_of_texts
from measure.machine import Load, read_machine, watch_load
from measure.messages import Block, Open, Opened, Probe, Probed, Timed
from measure.overhead import overhead
from measure.plan import Plan
from measure.preparing import prepared
from measure.process import WorkerFailed, WorkerProcess
from measure.records import (
    SCHEMA_VERSION,
    Entrant,
    Failure,
    Measurement,
    Overhead,
    Record,
    Role,
    Session,
    append,
    load,
)
from measure.replicate import Finished, GaveUp, Setting, run_replicate
from measure.scoring import Scorer
from measure.source import ModelSource
from measure.workload import (
    Inputs,
    Length,
    save_inputs,
)
from runtimes.base import Availability, Candidate
from runtimes.registry import CALIBRATE, REFERENCE, entry, is_calibrated, where_runs

VERSIONED = (
    *("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "onnxruntime-genai", "openvino", "torchao"),
    *("llama-cpp-python", "tokenizers", "numpy"),
)
TOOL = "steelyard"
"""Kept with every measurement, and no reason to measure again."""

KEPT_ENVIRONMENT = ("OMP_", "KMP_", "MKL_", "ORT_", "OV_", "GGML_", "TORCH", "CUDA_", "MALLOC_", "LD_PRELOAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What to compare, on what, and where the results go. `calibration` are training texts, for candidates that are
    made while loading. `unable` are runtimes that were asked for and do not run such a model, which is told."""

    source: ModelSource
    examples: Examples
    candidates: tuple[Candidate, ...]
    batch_sizes: tuple[int, ...]
    lengths: tuple[Length, ...]
    plan: Plan
    measurements: Path
    reference: Path
    threads: int | None = None
    calibration: tuple[TextItem, ...] = ()
    unable: tuple[str, ...] = ()


def compare(task: Comparison, progress: Progress = silent) -> list[Record]:
    """Measure what is not measured yet and return every record of the file.

    A measurement counts as done when model, data, work, plan, threads, versions, environment, machine and anchor are
    the same. If something is missing, the anchor runs along, because only what ran interleaved can be compared. Raises
    `UserError` when nothing can run, nothing that the model answers is right or wrong, more threads are asked for than
    this process may use, or a calibration text is one of the examples.
    """
    threads = threads_for(task.threads)
    if shared := {_spelled(text) for text in task.calibration} & {_spelled(text) for text in task.examples.texts}:
        raise UserError(
            f"{len(shared)} texts are both in the calibration and in the examples, such as '{min(shared)[:60]}'",
            "calibrate on training texts alone: ranges taken from the examples would flatter int8-static",
        )
    source = task.source
    inputs, labels = prepared(source, task.examples, task.batch_sizes, task.lengths, task.calibration)
    progress("compare", 0, 1, "looking at what can run here")
    runnable, failures = find_runnable(task.source, task.candidates, threads, calibrated=bool(task.calibration))
    reason = f"it does not run {'language models' if source.writes else 'models that answer in one pass'} yet"
    elsewhere = where_runs(language=source.writes)
    failures += [failure_of(name, Role.CANDIDATE, "model", reason, elsewhere) for name in task.unable]
    comparison = _Campaign(task, threads, inputs, labels, runnable, failures, progress)
    comparison.run()
    return load(task.measurements)


def _spelled(text: TextItem) -> str:
    return text if isinstance(text, str) else " | ".join(text)


def threads_for(asked: int | None) -> int:
    """Threads of every engine: those asked for, or all usable cores. Raises `UserError` for more than there are."""
    usable = usable_cores()
    if asked is not None and not 1 <= asked <= usable:
        raise UserError(f"--threads {asked}: this process may use 1 to {usable} cores", "see: steelyard doctor")
    return asked or usable


def probe_runtimes(names: Iterable[str], threads: int, timeout_s: float = 300) -> tuple[Availability, ...]:
    """Ask a process of its own which runtimes can work, so that no engine is loaded into this one.

    If that process dies, each runtime is asked for alone, to find the one that kills it.
    """
    asked = tuple(names)
    try:
        with WorkerProcess(threads) as worker:
            return worker.ask(Probe(runtimes=asked), Probed, timeout_s).available
    except WorkerFailed as failed:
        if len(asked) > 1:
            return tuple(found for name in asked for found in probe_runtimes((name,), threads, timeout_s))
        reason = f"its engine cannot be loaded: {failed.reason}"
        return (Availability(runtime=asked[0], available=False, reason=reason, remedy="install it again"),)


def find_runnable(
    source: ModelSource, candidates: Sequence[Candidate], threads: int, *, calibrated: bool
) -> tuple[tuple[Candidate, ...], list[Failure]]:
    """Candidates whose engine works here and whose model is there; the others with their reasons.

    `calibrated` says whether there are texts to calibrate on. Raises `UserError` when none can run.
    """
    names = tuple(dict.fromkeys(candidate.runtime for candidate in candidates))
    failures: list[Failure] = []
    able = {}
    for found in probe_runtimes(names, threads):
        if found.available:
            able[found.runtime] = found
        else:
            failures.append(failure_of(found.runtime, Role.CANDIDATE, "probe", found.reason or "", found.remedy or ""))
    runnable = []
    for candidate in candidates:
        if candidate.runtime not in able:
            continue
        lack = able[candidate.runtime].lack_of(candidate)
        if lack is not None:
            failures.append(failure_of(candidate, Role.CANDIDATE, "probe", lack.reason, lack.remedy))
            continue
        if is_calibrated(candidate) and not calibrated:
            failures.append(failure_of(candidate, Role.CANDIDATE, "calibration", *_uncalibrated(source)))
            continue
        try:
            source.model(candidate)
        except UserError as error:
            failures.append(failure_of(candidate, Role.CANDIDATE, "model", error.message, error.hint))
        else:
            runnable.append(candidate)
    if not runnable:
        first = failures[0]
        raise UserError(f"no candidate can run here; {first.runtime}: {first.reason}", first.hint)
    return tuple(runnable), failures


def _uncalibrated(source: ModelSource) -> tuple[str, str]:
    """Why nothing is calibrated, and what would help."""
    if source.image is not None:
        return "it is not calibrated on pictures yet", "measure another precision"
    return "it needs training examples to calibrate on", CALIBRATE


def failure_of(what: Candidate | str, role: Role, stage: str, reason: str, hint: str) -> Failure:
    """A failure of one candidate, or of a whole runtime by its name."""
    candidate = None if isinstance(what, str) else what
    return Failure(
        schema_version=SCHEMA_VERSION,
        session="",
        runtime=candidate.runtime if candidate else str(what),
        precision=candidate.precision if candidate else None,
        options=candidate.options if candidate else (),
        role=role,
        stage=stage,
        reason=reason,
        hint=hint,
    )


def choose_anchor(candidates: Sequence[Candidate]) -> Candidate:
    """What every ratio divides by: the reference if it runs here, else the first fp32 candidate, else the first."""
    if REFERENCE in candidates:
        return REFERENCE
    return next((item for item in candidates if item.precision is Precision.FP32), candidates[0])


class _Campaign:
    """One stretch of measuring, from the first missing replicate to the last."""

    def __init__(
        self,
        task: Comparison,
        threads: int,
        inputs: Inputs,
        labels: list[Any],
        runnable: tuple[Candidate, ...],
        failures: list[Failure],
        progress: Progress,
    ) -> None:
        self.task, self.plan, self.threads, self.inputs, self.labels = task, task.plan, threads, inputs, labels
        self.failures, self.progress = failures, progress
        self.inputs_sha256 = inputs.sha256  # of recordings and pictures, all files are read for it
        self.session = uuid.uuid4().hex[:12]
        self.machine = read_machine()
        anchor = choose_anchor(runnable)
        self.anchor = Entrant(anchor, Role.ANCHOR)
        others = [Entrant(candidate, Role.CANDIDATE) for candidate in runnable if candidate != anchor]
        self.entrants = [self.anchor, Entrant(anchor, Role.CONTROL), *others]
        self.versions = installed_versions()
        self.environment = kept_environment()
        self.marks = {entrant: self._mark(entrant) for entrant in self.entrants}
        self.steps_done = self.steps = 0
        self.began = perf_counter()

    def run(self) -> None:
        """Measure every replicate that lacks an entrant, then more of what is undecided; return at once when nothing is
        missing."""
        known = load(self.task.measurements)
        todo = {replicate: entrants for replicate, entrants in self._missing(known).items() if entrants}
        if not todo and not self._unsettled(known):
            self._ask_again(known)
            return
        self.steps = sum(len(entrants) + self.plan.of(number).rounds for number, entrants in todo.items())
        self.steps += len(todo.get(0, ()))  # answers are scored in the first replicate
        with TemporaryDirectory(prefix="steelyard-") as scratch, CoreLatency(self.threads) as cores:
            setting = Setting(
                source=self.task.source,
                plan=self.plan,
                threads=self.threads,
                inputs=self.inputs,
                inputs_file=Path(scratch) / "inputs.npz",
                random=np.random.default_rng([self.plan.seed, int(self.session, 16)]),
                step=self._step,
                cores=cores,
                limit_at=self.began + self.plan.limit_s,
            )
            save_inputs(setting.inputs_file, self.inputs)
            self._begin_session(watch_load(), _harness_floor(setting), _tokenizer_floor(setting), self._overhead())
            scorer = Scorer(
                self.task.reference,
                self._reference_mark(),
                self.labels,
                () if self.inputs.writes else self.task.batch_sizes,
                Path(scratch),
                assessed=assess_of(self.inputs, self.labels),
            )
            for replicate, entrants in todo.items():
                able = [entrant for entrant in entrants if entrant in self.entrants]
                name = f"process {replicate + 1} of {self.plan.replicates}"
                mine = replace(setting, plan=self.plan.of(replicate))
                for outcome in run_replicate(mine, able, name, scorer if replicate == 0 else None):
                    self._record(replicate, outcome)
            while entrants := self._unsettled(known := load(self.task.measurements)):
                replicate = 1 + max(item.replicate for items in self._measured(known).values() for item in items)
                mine = replace(setting, plan=self.plan.of(replicate))
                self.steps += len(entrants) + mine.plan.rounds
                name = f"undecided: {len(entrants) - 1}, process {replicate + 1}"
                for outcome in run_replicate(mine, entrants, name, None):
                    self._record(replicate, outcome)
        self.progress("compare", self.steps, self.steps)

    def _missing(self, known: Sequence[Record]) -> dict[int, list[Entrant]]:
        """What each replicate lacks. Done is what ran beside the anchor and was scored where it should be."""
        ours = [item for items in self._measured(known).values() for item in items]
        paired = {(record.session, record.replicate) for record in ours if record.role is Role.ANCHOR}
        done = {
            (record.entrant, record.replicate)
            for record in ours
            if (record.session, record.replicate) in paired
            and (record.replicate > 0 or record.role is Role.CONTROL or record.quality)
        }
        missing: dict[int, list[Entrant]] = {}
        for replicate in range(self.plan.replicates):
            entrants = [entrant for entrant in self.entrants if (entrant, replicate) not in done]
            if entrants and self.anchor not in entrants:
                entrants.insert(0, self.anchor)
            missing[replicate] = entrants
        return missing

    def _measured(self, known: Sequence[Record]) -> dict[Entrant, list[Measurement]]:
        """The measurements that answer this question, of entrants that have not given up."""
        found: dict[Entrant, list[Measurement]] = {}
        for record in known:
            if isinstance(record, Measurement) and record.fingerprint == self.marks.get(record.entrant):
                found.setdefault(record.entrant, []).append(record)
        return {entrant: items for entrant, items in found.items() if entrant in self.entrants}

    def _unsettled(self, known: Sequence[Record]) -> list[Entrant]:
        """Who is measured once more, the anchor first; empty where all is settled or the plan cannot afford more."""
        measured, workloads = self._measured(known), self.inputs.workloads
        if self.anchor not in measured:
            return []
        shapes = {workload.spec.name: workload.spec.sample_shapes for workload in workloads}
        return next_entrants(measured, self.entrants, shapes, spent_seconds(known, measured), self.plan)

    def _mark(self, entrant: Entrant) -> str:
        """Everything a measurement depends on."""
        candidate = entrant.candidate
        calibration = {"calibration": self.inputs.calibration_sha256} if is_calibrated(candidate) else {}
        offer = entry(candidate.runtime).offer(language=self.inputs.writes)
        several = {"intervals": "of texts"} if decisions_of_texts(self.inputs, len(self.labels)) else {}
        return fingerprint(
            calibration
            | several
            | {
                "schema": SCHEMA_VERSION,
                "candidate": candidate.id,
                "role": entrant.role,
                "model": self.task.source.model_sha256(candidate),
                "anchor": [self.anchor.candidate.id, self.task.source.model_sha256(self.anchor.candidate)],
                "inputs": self.inputs_sha256,
                "labels": self.labels,
                "score": self.task.batch_sizes,
                "threads": self.threads,
                "plan": msgspec.to_builtins(self.plan),
                "defaults": msgspec.to_builtins(offer.options) if offer else None,
                "versions": self.versions,
                "environment": self.environment,
                "machine": self.machine.identity,
            }
        )

    def _reference_mark(self) -> str | None:
        """What the reference's answers depend on, or `None` where there is no checkpoint that it could answer from."""
        if self.task.source.checkpoint is None:
            return None
        return fingerprint(
            {
                "candidate": REFERENCE.id,
                "model": self.task.source.model_sha256(REFERENCE),
                "inputs": self.inputs_sha256,
                "examples": self.task.examples.sha256,
            }
        )

    def _ask_again(self, known: Sequence[Record]) -> None:
        """Note a question that measurements answer already, unless it is the newest one."""
        last = next((record for record in reversed(known) if isinstance(record, Session)), None)
        if last is None or last.asked != self._asked():
            self._begin_session()

    def _asked(self) -> dict[str, str]:
        failed = {failure.name: failure.reason for failure in self.failures}
        return {entrant.name: mark for entrant, mark in self.marks.items()} | failed

    def _overhead(self) -> Overhead | None:
        """What a token of a language model takes besides any engine; `None` of other models."""
        if not self.inputs.writes:
            return None
        source, examples = self.task.source, self.task.examples
        encoder = source.encoder()
        if self.inputs.recordings is not None:
            said = [str(label) for label in examples.labels]
            return overhead(source.tokenizer, encoder, said, recordings=self.inputs.recordings)
        return overhead(source.tokenizer, encoder, [str(text) for text in examples.texts])

    def _begin_session(
        self,
        load: Load | None = None,
        harness_floor_s: float | None = None,
        tokenizer_floor_s: float | None = None,
        around: Overhead | None = None,
    ) -> None:
        self._append(
            Session(
                schema_version=SCHEMA_VERSION,
                session=self.session,
                asked=self._asked(),
                started_utc=now_utc(),
                machine=self.machine,
                load=load,
                plan=self.plan,
                threads=self.threads,
                workloads=tuple(workload.spec for workload in self.inputs.workloads),
                labels=self.task.source.labels,
                reference=REFERENCE.id,
                data=self.task.examples.source.name,
                data_sha256=self.task.examples.sha256,
                inputs_sha256=self.inputs_sha256,
                examples=len(self.task.examples),
                score_batch_sizes=self.task.batch_sizes,
                harness_floor_s=harness_floor_s,
                versions=self.versions | installed_versions(TOOL),
                environment=self.environment,
                tokenizer_floor_s=tokenizer_floor_s,
                overhead=around,
                judged=self.inputs.judged,
            )
        )
        for failure in self.failures:
            self._append(msgspec.structs.replace(failure, session=self.session))

    def _record(self, replicate: int, outcome: Finished | GaveUp) -> None:
        """Write a result down; one that gave up is a row with its reason and is not tried again in this session."""
        entrant, candidate = outcome.entrant, outcome.entrant.candidate
        if isinstance(outcome, GaveUp):
            self.entrants.remove(entrant)
            failed = outcome.failed
            failure = failure_of(candidate, entrant.role, outcome.stage, failed.reason, failed.hint)
            self._append(msgspec.structs.replace(failure, session=self.session))
            return
        if outcome.weighed is None:
            raise RuntimeError("a replicate weighs what it finishes")
        opened, weighed = outcome.opened, outcome.weighed
        self._append(
            Measurement(
                schema_version=SCHEMA_VERSION,
                session=self.session,
                fingerprint=self.marks[entrant],
                replicate=replicate,
                runtime=candidate.runtime,
                precision=candidate.precision,
                options=candidate.options,
                role=entrant.role,
                portable=entry(candidate.runtime).portable,
                info=opened.info,
                model_bytes=self.task.source.model_bytes(candidate),
                step_bytes=self.task.source.step_bytes(candidate),
                model_sha256=self.task.source.model_sha256(candidate),
                cold_start=outcome.cold_start,
                warm_ups=tuple(outcome.warm_ups),
                blocks=tuple(outcome.blocks),
                quality=outcome.quality,
                baseline_memory=opened.baseline_memory,
                memory=max(opened.loaded_memory, weighed.memory, key=lambda reading: reading.rss_bytes),
                peak_device_bytes=weighed.peak_device_bytes,
                device_bytes=weighed.device_bytes,
                executed=outcome.executed,
                finished_utc=now_utc(),
                session_s=perf_counter() - self.began,
            )
        )

    def _step(self, note: str) -> None:
        self.progress("compare", self.steps_done, self.steps, note)
        self.steps_done += 1

    def _append(self, record: Record) -> None:
        append(self.task.measurements, record)


def _harness_floor(setting: Setting) -> float | None:
    """Median seconds of a call that computes nothing: what the harness itself adds to every sample."""
    return _without_engine(setting, from_text=False, passes=500)


def _tokenizer_floor(setting: Setting) -> float | None:
    """Median seconds of a pass from texts to labels that computes nothing between; `None` where none is asked for."""
    return _without_engine(setting, from_text=True, passes=20)


def _without_engine(setting: Setting, *, from_text: bool, passes: int) -> float | None:
    """Median seconds of a sample of the first such workload on the runtime that computes nothing."""
    kinds = [bool(workload.texts) for workload in setting.inputs.workloads]
    if setting.inputs.writes or setting.inputs.pictures is not None or from_text not in kinds:
        return None
    request = Open(
        candidate=Candidate("null", Precision.FP32),
        model=str(setting.source.directory),
        threads=setting.threads,
        inputs=str(setting.inputs_file),
    )
    with WorkerProcess(setting.threads) as worker:
        try:
            worker.ask(request, Opened, 60)
            timed = worker.ask(Block(workload=kinds.index(from_text), passes=passes), Timed, 60)
        except WorkerFailed:
            return None
    return median(timed.samples_s)


def installed_versions(*more: str) -> dict[str, str]:
    """Versions of the packages that decide the figures, and of `more`, as far as they are installed."""
    found = {}
    for name in (*VERSIONED, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def kept_environment() -> dict[str, str]:
    """Environment variables that engines heed."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(KEPT_ENVIRONMENT)}


def now_utc() -> str:
    """The time, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
