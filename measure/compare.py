"""Measure every candidate, interleaved, in fresh processes, and keep each result as soon as it is known."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import TypeVar

import msgspec
import numpy as np

from artifact.examples import Examples, label_indices
from artifact.predict import usable_cores
from artifact.precision import Precision
from artifact.progress import Progress, silent
from artifact.records import fingerprint
from artifact.tokenizer import text_encoder
from errors import UserError
from measure.machine import read_machine
from measure.messages import Block, Open, Opened, Probe, Probed, Score, Scored, Timed, WarmUp, Weigh, Weighed
from measure.process import WorkerFailed, WorkerProcess
from measure.quality import assess
from measure.records import (
    SCHEMA_VERSION,
    BlockSamples,
    ColdStart,
    Entrant,
    Failure,
    Measurement,
    Plan,
    Quality,
    Record,
    Role,
    Session,
    WarmUpSamples,
    append,
    load,
)
from measure.reference import Reference, load_reference, save_reference
from measure.source import ModelSource
from measure.timing import passes_for
from measure.workload import Inputs, build_inputs, save_inputs
from runtimes.base import Availability, Candidate
from runtimes.registry import REFERENCE, engine_version

T = TypeVar("T")
VERSIONED = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")
KEPT_ENVIRONMENT = ("OMP_", "KMP_", "MKL_", "ORT_", "TORCH", "CUDA_", "MALLOC_", "LD_PRELOAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to compare, on what, and where the results go."""

    source: ModelSource
    examples: Examples
    candidates: tuple[Candidate, ...]
    batch_sizes: tuple[int, ...]
    lengths: tuple[int | None, ...]
    plan: Plan
    measurements: Path
    reference: Path
    threads: int | None = None


def compare(task: Task, progress: Progress = silent) -> list[Record]:
    """Measure what is not measured yet and return every record of the file.

    A measurement counts as done when model, data, work, plan, threads, engine and machine are the same. If something is
    missing, the anchor runs along, because only what ran interleaved can be compared. Raises `UserError` when nothing
    can run, or more threads are asked for than this process may use.
    """
    threads = _threads(task.threads)
    encoder = text_encoder(task.source.tokenizer, task.source.limits)
    inputs = build_inputs(task.examples.texts, encoder, task.source.limits, task.batch_sizes, task.lengths)
    labels = label_indices(task.examples, task.source.labels)
    progress("compare", 0, 1, "looking at what can run here")
    runnable, failures = _runnable(task, threads)
    if not runnable:
        first = failures[0]
        raise UserError(f"no candidate can run here; {first.runtime}: {first.reason}", first.hint)
    comparison = _Comparison(task, threads, inputs, labels, runnable, failures, progress)
    comparison.run()
    return load(task.measurements)


def _threads(asked: int | None) -> int:
    usable = usable_cores()
    if asked is not None and not 1 <= asked <= usable:
        raise UserError(f"--threads {asked}: this process may use 1 to {usable} cores", "see: steelyard doctor")
    return asked or usable


def probe_runtimes(names: Iterable[str], threads: int, timeout_s: float = 300) -> tuple[Availability, ...]:
    """Ask a process of its own which runtimes can work, so that no engine is loaded into this one."""
    with WorkerProcess(threads) as worker:
        return worker.ask(Probe(runtimes=tuple(names)), Probed, timeout_s).available


def _runnable(task: Task, threads: int) -> tuple[tuple[Candidate, ...], list[Failure]]:
    """Candidates whose engine works here and whose model is there; the others with their reasons."""
    names = tuple(dict.fromkeys(candidate.runtime for candidate in task.candidates))
    failures: list[Failure] = []
    able = set()
    for found in probe_runtimes(names, threads):
        if found.available:
            able.add(found.runtime)
        else:
            failures.append(_failure(found.runtime, None, Role.CANDIDATE, "probe", found.reason or "", found.remedy or ""))
    runnable = []
    for candidate in task.candidates:
        if candidate.runtime not in able:
            continue
        try:
            task.source.model(candidate)
        except UserError as error:
            failures.append(
                _failure(candidate.runtime, candidate.precision, Role.CANDIDATE, "model", error.message, error.hint)
            )
        else:
            runnable.append(candidate)
    return tuple(runnable), failures


def _failure(runtime: str, precision: Precision | None, role: Role, stage: str, reason: str, hint: str) -> Failure:
    return Failure(
        schema_version=SCHEMA_VERSION,
        session="",
        runtime=runtime,
        precision=precision,
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


@dataclass(slots=True)
class _Live:
    """One candidate's process while a replicate runs."""

    entrant: Entrant
    process: WorkerProcess
    opened: Opened
    cold_start: ColdStart
    warm_ups: list[WarmUpSamples] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    blocks: list[BlockSamples] = field(default_factory=list)


class _Comparison:
    """One stretch of measuring, from the first missing replicate to the last."""

    def __init__(
        self,
        task: Task,
        threads: int,
        inputs: Inputs,
        labels: list[int],
        runnable: tuple[Candidate, ...],
        failures: list[Failure],
        progress: Progress,
    ) -> None:
        self.task, self.plan, self.threads, self.inputs, self.labels = task, task.plan, threads, inputs, labels
        self.failures, self.progress = failures, progress
        self.session = uuid.uuid4().hex[:12]
        self.machine = read_machine()
        anchor = choose_anchor(runnable)
        self.anchor = Entrant(anchor, Role.ANCHOR)
        others = [Entrant(candidate, Role.CANDIDATE) for candidate in runnable if candidate != anchor]
        self.entrants = (self.anchor, Entrant(anchor, Role.CONTROL), *others)
        self.marks = {entrant: self._mark(entrant) for entrant in self.entrants}
        self.random = np.random.default_rng([self.plan.seed, int(self.session, 16)])
        self.score_sizes = tuple(sorted(set(task.batch_sizes)))
        self.steps_done = self.steps = 0
        self.reference = load_reference(task.reference, self._reference_mark())

    def run(self) -> None:
        """Measure every replicate that lacks an entrant; return at once when nothing is missing."""
        missing = self._missing()
        todo = {replicate: entrants for replicate, entrants in missing.items() if entrants}
        if not todo:
            return
        self.steps = sum((len(entrants) + self.plan.rounds) for entrants in todo.values())
        folder = Path(tempfile.mkdtemp(prefix="steelyard-"))
        try:
            self.inputs_file = folder / "inputs.npz"
            save_inputs(self.inputs_file, self.inputs)
            self._begin_session()
            for replicate, entrants in todo.items():
                self._replicate(replicate, entrants, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _missing(self) -> dict[int, list[Entrant]]:
        done = {
            (record.entrant, record.replicate)
            for record in load(self.task.measurements)
            if isinstance(record, Measurement) and record.fingerprint == self.marks.get(record.entrant)
        }
        missing: dict[int, list[Entrant]] = {}
        for replicate in range(self.plan.replicates):
            entrants = [entrant for entrant in self.entrants if (entrant, replicate) not in done]
            if entrants and self.anchor not in entrants:
                entrants.insert(0, self.anchor)
            missing[replicate] = entrants
        return missing

    def _mark(self, entrant: Entrant) -> str:
        """Everything a measurement depends on."""
        candidate = entrant.candidate
        return fingerprint(
            {
                "schema": SCHEMA_VERSION,
                "candidate": candidate.id,
                "role": entrant.role,
                "model": self.task.source.model_sha256(candidate),
                "inputs": self.inputs.sha256,
                "labels": self.labels,
                "score": self.task.batch_sizes,
                "threads": self.threads,
                "plan": msgspec.to_builtins(self.plan),
                "engine": engine_version(candidate.runtime),
                "machine": self.machine.identity,
            }
        )

    def _reference_mark(self) -> str:
        source = self.task.source
        model = source.checkpoint and source.model_sha256(REFERENCE)
        return fingerprint({"model": model, "inputs": self.inputs.sha256, "examples": self.task.examples.sha256})

    def _begin_session(self) -> None:
        versions = {}
        for name in VERSIONED:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        self._append(
            Session(
                schema_version=SCHEMA_VERSION,
                session=self.session,
                started_utc=_now(),
                machine=self.machine,
                plan=self.plan,
                threads=self.threads,
                workloads=tuple(workload.spec for workload in self.inputs.workloads),
                labels=self.task.source.labels,
                data=self.task.examples.source.name,
                data_sha256=self.task.examples.sha256,
                inputs_sha256=self.inputs.sha256,
                examples=len(self.task.examples),
                score_batch_sizes=self.score_sizes,
                harness_floor_s=self._harness_floor(),
                versions=versions,
                environment={
                    name: value for name, value in sorted(os.environ.items()) if name.startswith(KEPT_ENVIRONMENT)
                },
            )
        )
        for failure in self.failures:
            self._append(msgspec.structs.replace(failure, session=self.session))

    def _harness_floor(self) -> float | None:
        """Median seconds of a call that computes nothing: what the harness itself adds to every sample."""
        with WorkerProcess(self.threads) as worker:
            try:
                worker.ask(self._open_request("null", Precision.FP32, self.task.source.directory), Opened, 60)
                timed = worker.ask(Block(workload=0, passes=500), Timed, 60)
            except WorkerFailed:
                return None
        return median(timed.samples_s)

    def _open_request(self, runtime: str, precision: Precision, model: Path) -> Open:
        return Open(
            runtime=runtime, precision=precision, model=str(model), threads=self.threads, inputs=str(self.inputs_file)
        )

    def _replicate(self, replicate: int, entrants: list[Entrant], folder: Path) -> None:
        """One fresh process of each entrant: start one after another, warm up, interleave, score, weigh, record."""
        with ExitStack() as stack:
            live = [
                started
                for entrant in self._shuffled([entrant for entrant in entrants if entrant in self.entrants])
                if (started := self._start(entrant, replicate, stack)) is not None
            ]
            for number in range(self.plan.rounds):
                note = f"process {replicate + 1} of {self.plan.replicates}, round {number + 1} of {self.plan.rounds}"
                self._step(note)
                live = self._round(number, live)
            live.sort(key=lambda item: item.entrant.role is not Role.ANCHOR)
            for item in live:
                self._finish(item, replicate, folder)

    def _start(self, entrant: Entrant, replicate: int, stack: ExitStack) -> _Live | None:
        self._step(f"process {replicate + 1} of {self.plan.replicates}: {entrant.name}")
        candidate = entrant.candidate
        process = stack.enter_context(WorkerProcess(self.threads))
        try:
            opened = process.ask(
                self._open_request(candidate.runtime, candidate.precision, self.task.source.model(candidate)),
                Opened,
                self.plan.timeout_s,
            )
            cold_start = ColdStart(
                total_s=perf_counter() - process.started,
                import_s=opened.import_s,
                load_s=opened.load_s,
                first_run_s=opened.first_run_s,
            )
            live = _Live(entrant, process, opened, cold_start)
            for number, workload in enumerate(self.inputs.workloads):
                timed = process.ask(
                    WarmUp(workload=number, limit_s=self.plan.warm_up_s), Timed, self.plan.timeout_s
                )
                live.warm_ups.append(
                    WarmUpSamples(workload=workload.spec.name, samples_s=timed.samples_s, level=timed.level)
                )
                live.passes.append(
                    passes_for(
                        timed.samples_s,
                        len(workload.batches),
                        self.plan.block_s,
                        self.plan.least_passes,
                        self.plan.most_passes,
                    )
                )
        except WorkerFailed as failed:
            self._give_up(entrant, "start", failed)
            return None
        return live

    def _round(self, number: int, live: list[_Live]) -> list[_Live]:
        """One block of every candidate on every workload; returns those that are still alive."""
        gone: set[Entrant] = set()
        for index in self.random.permutation(len(self.inputs.workloads)):
            for item in self._shuffled(live):
                if item.entrant in gone:
                    continue
                sleep(self.plan.settle_s)  # lets the spinning threads of the one before fall asleep
                try:
                    timed = item.process.ask(
                        Block(workload=int(index), passes=item.passes[index]), Timed, self.plan.timeout_s
                    )
                except WorkerFailed as failed:
                    self._give_up(item.entrant, "timing", failed)
                    gone.add(item.entrant)
                    continue
                item.blocks.append(
                    BlockSamples(
                        workload=self.inputs.workloads[index].spec.name,
                        round=number,
                        primer_s=timed.primer_s or 0.0,
                        samples_s=timed.samples_s,
                    )
                )
        return [item for item in live if item.entrant not in gone]

    def _finish(self, item: _Live, replicate: int, folder: Path) -> None:
        """Score (first replicate), weigh, and write the measurement down."""
        entrant = item.entrant
        try:
            quality = self._score(item, folder) if replicate == 0 and entrant.role is not Role.CONTROL else ()
            weighed = item.process.ask(Weigh(), Weighed, self.plan.timeout_s)
        except WorkerFailed as failed:
            self._give_up(entrant, "scoring", failed)
            return
        self._append(
            Measurement(
                schema_version=SCHEMA_VERSION,
                session=self.session,
                fingerprint=self.marks[entrant],
                replicate=replicate,
                runtime=entrant.candidate.runtime,
                precision=entrant.candidate.precision,
                role=entrant.role,
                info=item.opened.info,
                model_bytes=self.task.source.model_bytes(entrant.candidate),
                cold_start=item.cold_start,
                warm_ups=tuple(item.warm_ups),
                blocks=tuple(item.blocks),
                quality=quality,
                baseline_memory=item.opened.baseline_memory,
                memory=max(item.opened.loaded_memory, weighed.memory, key=lambda reading: reading.uss_bytes),
                peak_device_bytes=weighed.peak_device_bytes,
                finished_utc=_now(),
            )
        )
        item.process.close()

    def _score(self, item: _Live, folder: Path) -> tuple[Quality, ...]:
        """Answers at every batch size, because some variants answer differently in other company."""
        found = []
        for batch_size in sorted(self.score_sizes, reverse=True):
            self.progress(
                "compare", self.steps_done, self.steps, f"{item.entrant.name}: {len(self.labels)} answers, batch {batch_size}"
            )
            path = folder / f"{item.entrant.candidate.id.replace('/', '-')}.npz"
            scored = item.process.ask(Score(batch_size=batch_size, path=str(path)), Scored, self.plan.timeout_s)
            with np.load(path, allow_pickle=False) as arrays:
                logits = np.asarray(arrays["logits"], dtype=np.float32)
            if self.reference is None:
                self.reference = Reference(item.entrant.candidate.id, logits)
                save_reference(self.task.reference, self.reference, self._reference_mark())
            found.append(
                assess(logits, self.reference, self.labels, batch_size=batch_size, seconds_s=scored.seconds_s)
            )
        return tuple(sorted(found, key=lambda quality: quality.batch_size))

    def _give_up(self, entrant: Entrant, stage: str, failed: WorkerFailed) -> None:
        """One failed row with its reason; the rest goes on, and this entrant is not tried again in this session."""
        self.entrants = tuple(other for other in self.entrants if other != entrant)
        self.failures.append(
            _failure(
                entrant.candidate.runtime, entrant.candidate.precision, entrant.role, stage, failed.reason, failed.hint
            )
        )
        self._append(msgspec.structs.replace(self.failures[-1], session=self.session))

    def _shuffled(self, items: Sequence[T]) -> list[T]:
        return [items[index] for index in self.random.permutation(len(items))]

    def _step(self, note: str) -> None:
        self.progress("compare", self.steps_done, self.steps, note)
        self.steps_done += 1

    def _append(self, record: Record) -> None:
        append(self.task.measurements, record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
