"""Send candidates requests that do not wait for answers: each in a fresh process, driven by LoadGen. Each test is kept
as soon as it is over."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, log2
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from artifact.predict.tokens import TextItem
from artifact.progress import Progress, silent
from artifact.records import fingerprint
from errors import UserError
from measure.compare import TOOL, failure_of, find_runnable, installed_versions, kept_environment, now_utc, threads_for
from measure.load_records import LoadRecord, LoadSession, LoadTest, append, load
from measure.machine import Load, read_machine, watch_load
from measure.messages import Drive, Driven, Open, Opened, Timed, WarmUp
from measure.process import WorkerFailed, WorkerProcess
from measure.records import SCHEMA_VERSION, Failure, Role
from measure.search import Outcome, next_rate
from measure.source import ModelSource
from measure.traffic import MOST_QUERIES, Scenario, Traffic
from measure.workload import CALIBRATION_EXAMPLES, build_inputs, save_inputs
from runtimes.base import Candidate
from runtimes.registry import entry, is_calibrated

PACKAGE = "mlcommons-loadgen"
STARTS_WITHIN_S = 900.0
WARM_UP_S = 1.0
UTILISATION = 0.5
"""The search for the highest rate begins near this share of what single calls could do one after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTask:
    """What to send to whom, and where the results go.

    99 % of the answers of the server scenario are due within `bound_s`; its highest rate is searched for unless
    `rate_per_s` gives one. A worker that is silent for `patience_s` longer than its test can take is ended. Raises
    `UserError` for numbers that make no sense.
    """

    source: ModelSource
    texts: tuple[TextItem, ...]
    data: str
    candidates: tuple[Candidate, ...]
    scenarios: tuple[Scenario, ...]
    duration_s: float
    bound_s: float
    max_batch: int
    records: Path
    rate_per_s: float | None = None
    threads: int | None = None
    calibration: tuple[TextItem, ...] = ()
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        numbers = {"--duration-s": self.duration_s, "--max-p99-ms": 1e3 * self.bound_s, "--rate": self.rate_per_s}
        for flag, value in numbers.items():
            if value is not None and not 0 < value < inf:
                raise UserError(f"{flag} has {value:g}", "give a number above 0")
        if self.rate_per_s is None:
            return
        if Scenario.SERVER not in self.scenarios:
            raise UserError(
                "--rate is for the server scenario, and --scenarios has none", "leave out --rate, or add server"
            )
        if self.rate_per_s * self.duration_s > MOST_QUERIES:
            raise UserError(
                f"--rate {self.rate_per_s:g} for {self.duration_s:g} s are more than {MOST_QUERIES:,} queries",
                "give a lower --rate or --duration-s",
            )

    def traffic(self, scenario: Scenario, rate_per_s: float | None = None) -> Traffic:
        """One test of this task."""
        traffic = Traffic(scenario=scenario, duration_s=self.duration_s, max_batch=self.max_batch)
        if scenario is not Scenario.SERVER:
            return traffic
        return msgspec.structs.replace(traffic, rate_per_s=rate_per_s, bound_s=self.bound_s)


def load_test(task: LoadTask, progress: Progress = silent) -> list[LoadRecord]:
    """Run the tests that are not done yet and return every record of the file.

    A test counts as done when candidate, model, texts, traffic, threads, versions, environment and machine are the
    same. Raises `UserError` when no candidate can run.
    """
    threads = threads_for(task.threads)
    progress("load-test", 0, 1, "looking at what can run here")
    runnable, failures = find_runnable(task.source, task.candidates, threads, calibrated=bool(task.calibration))
    _Campaign(task, threads, runnable, failures, progress).run()
    return load(task.records)


class _Campaign:
    """One stretch of tests, candidate after candidate."""

    def __init__(
        self,
        task: LoadTask,
        threads: int,
        runnable: tuple[Candidate, ...],
        failures: list[Failure],
        progress: Progress,
    ) -> None:
        self.task, self.threads, self.progress = task, threads, progress
        self.runnable, self.failures = runnable, failures
        source = task.source
        self.inputs = build_inputs(
            task.texts,
            source.encoder(),
            source.text_limits,
            (1,),
            (None,),
            calibration=task.calibration[:CALIBRATION_EXAMPLES],
            head=source.head,
        )
        self.session = uuid.uuid4().hex[:12]
        self.machine = read_machine()
        self.versions = installed_versions(PACKAGE)
        self.environment = kept_environment()
        self.marks = {candidate: self._mark(candidate) for candidate in runnable}
        self.done: dict[Candidate, dict[Traffic, LoadTest]] = {candidate: {} for candidate in runnable}
        for record in load(task.records):
            if isinstance(record, LoadTest) and record.fingerprint == self.marks.get(record.candidate):
                self.done[record.candidate][record.traffic] = record
        self.steps = len(runnable) * len(task.scenarios)
        self.stage = ""

    def run(self) -> None:
        """Run what is missing; a candidate that fails is a row with its reason, and the others go on."""
        missing = [
            candidate
            for candidate in self.runnable
            if not all(self._is_done(candidate, scenario) for scenario in self.task.scenarios)
        ]
        self._begin_session(watch_load() if missing else None)
        with TemporaryDirectory(prefix="steelyard-") as scratch:
            folder = Path(scratch)
            save_inputs(folder / "inputs.npz", self.inputs)
            for candidate in missing:
                try:
                    self._test(candidate, folder)
                except WorkerFailed as failed:
                    failure = failure_of(candidate, Role.CANDIDATE, self.stage, failed.reason, failed.hint)
                    append(self.task.records, msgspec.structs.replace(failure, session=self.session))
        self.progress("load-test", self.steps, self.steps)

    def _test(self, candidate: Candidate, folder: Path) -> None:
        """Every missing test of one candidate, in one process. Raises `WorkerFailed`."""
        self._step("start", candidate, 0)
        with WorkerProcess(self.threads) as worker:
            request = Open(
                candidate=candidate,
                model=str(self.task.source.model(candidate)),
                threads=self.threads,
                inputs=str(folder / "inputs.npz"),
            )
            opened = worker.ask(request, Opened, STARTS_WITHIN_S)
            warm = worker.ask(WarmUp(workload=0, limit_s=WARM_UP_S), Timed, STARTS_WITHIN_S)
            call_s = median(warm.samples_s)
            for number, scenario in enumerate(self.task.scenarios):
                while (traffic := self._next(candidate, scenario, call_s)) is not None:
                    self._step(scenario, candidate, number, traffic.rate_per_s)
                    self._keep(candidate, opened, traffic, self._drive(worker, traffic, call_s, folder))

    def _drive(self, worker: WorkerProcess, traffic: Traffic, call_s: float, folder: Path) -> Driven:
        """`call_s` is a call with one text; a rehearsal of full batches takes some hundreds of that at most."""
        calls = 400 + (traffic.most_waiting or 0)
        timeout_s = self.task.patience_s + 2 * traffic.longest_s + 2 * calls * call_s
        with TemporaryDirectory(prefix="loadgen-", dir=folder) as logs:
            return worker.ask(Drive(traffic=traffic, folder=logs), Driven, timeout_s)

    def _next(self, candidate: Candidate, scenario: Scenario, call_s: float) -> Traffic | None:
        """The next test of a scenario, or `None` when it is done."""
        if not self._is_search(scenario):
            traffic = self.task.traffic(scenario, self.task.rate_per_s)
            return None if traffic in self.done[candidate] else traffic
        start = 2.0 ** floor(log2(UTILISATION / call_s))
        rate = next_rate(self._tries(candidate), start, MOST_QUERIES / self.task.duration_s)
        return None if rate is None else self.task.traffic(scenario, rate)

    def _is_done(self, candidate: Candidate, scenario: Scenario) -> bool:
        if self._is_search(scenario) and not self._tries(candidate):
            return False
        return self._next(candidate, scenario, 1.0) is None

    def _is_search(self, scenario: Scenario) -> bool:
        return scenario is Scenario.SERVER and self.task.rate_per_s is None

    def _tries(self, candidate: Candidate) -> Mapping[float, Outcome]:
        return {
            traffic.rate_per_s: test.outcome
            for traffic, test in self.done[candidate].items()
            if traffic.rate_per_s is not None and test.outcome is not None
        }

    def _keep(self, candidate: Candidate, opened: Opened, traffic: Traffic, driven: Driven) -> None:
        test = LoadTest(
            schema_version=SCHEMA_VERSION,
            session=self.session,
            fingerprint=self.marks[candidate],
            runtime=candidate.runtime,
            precision=candidate.precision,
            options=candidate.options,
            info=opened.info,
            model_sha256=self.task.source.model_sha256(candidate),
            traffic=traffic,
            observed=driven.observed,
            finished_utc=now_utc(),
        )
        append(self.task.records, test)
        self.done[candidate][traffic] = test

    def _mark(self, candidate: Candidate) -> str:
        """Everything a test depends on, but for its scenario and rate."""
        calibration = {"calibration": self.inputs.calibration_sha256} if is_calibrated(candidate) else {}
        return fingerprint(
            calibration
            | {
                "schema": SCHEMA_VERSION,
                "candidate": candidate.id,
                "model": self.task.source.model_sha256(candidate),
                "inputs": self.inputs.sha256,
                "duration": self.task.duration_s,
                "bound": self.task.bound_s,
                "batch": self.task.max_batch,
                "threads": self.threads,
                "defaults": msgspec.to_builtins(entry(candidate.runtime).options),
                "versions": self.versions,
                "environment": self.environment,
                "machine": self.machine.identity,
            }
        )

    def _begin_session(self, before: Load | None) -> None:
        asked = {candidate.id: mark for candidate, mark in self.marks.items()}
        session = LoadSession(
            schema_version=SCHEMA_VERSION,
            session=self.session,
            asked=asked | {failure.name: failure.reason for failure in self.failures},
            started_utc=now_utc(),
            machine=self.machine,
            load=before,
            threads=self.threads,
            scenarios=self.task.scenarios,
            duration_s=self.task.duration_s,
            bound_s=self.task.bound_s,
            max_batch=self.task.max_batch,
            rate_per_s=self.task.rate_per_s,
            data=self.task.data,
            examples=len(self.task.texts),
            inputs_sha256=self.inputs.sha256,
            versions=self.versions | installed_versions(TOOL),
            environment=self.environment,
        )
        append(self.task.records, session)
        for failure in self.failures:
            append(self.task.records, msgspec.structs.replace(failure, session=self.session))

    def _step(self, stage: str, candidate: Candidate, number: int, rate_per_s: float | None = None) -> None:
        self.stage = stage
        done = self.runnable.index(candidate) * len(self.task.scenarios) + number
        at = f" at {rate_per_s:g}/s" if rate_per_s else ""
        self.progress("load-test", done, self.steps, f"{candidate.id}: {stage}{at}")
