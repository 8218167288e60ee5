"""MLPerf LoadGen drives an open runtime: it decides which texts come and when, and judges what it saw.

A latency is LoadGen's: from the moment a query was due to the moment its answer was handed over, so that a query that
waits behind a slow one counts the wait too.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import msgspec
import numpy as np

from artifact.predict.tokens import BATCH_ROWS, batches_by_length
from errors import UserError
from measure.timing import warm_up, without_collection
from measure.traffic import MULTI_STREAM_SAMPLES, QUANTILES, Judgement, Observed, Scenario, Traffic
from measure.workload import Inputs
from runtimes.base import Batch, Runtime

PACKAGE, EXTRA = "mlperf_loadgen", "loadgen"
REHEARSED = 4
"""Batches that are run, again and again until their times are level, before a test."""

REHEARSAL_S = 1.0

HEADROOM = 1.2
"""How much faster than its rehearsal an engine may be before LoadGen runs out of samples in the offline scenario."""

SCENARIOS = {
    Scenario.SINGLE_STREAM: "SingleStream",
    Scenario.MULTI_STREAM: "MultiStream",
    Scenario.OFFLINE: "Offline",
    Scenario.SERVER: "Server",
}
"""Their names in LoadGen."""

Issue = Callable[[list[int], list[int]], None]
"""Takes LoadGen's ids of the samples of a query, and which texts they are."""


class Answerer:
    """Runs texts together as one batch and tells LoadGen that they are answered.

    `batches` counts the calls by their rows. After the first error nothing is run any more, but every sample is told to
    be answered, because LoadGen waits for each; `check` raises that error.
    """

    def __init__(self, runtime: Runtime, inputs: Inputs, complete: Callable[[list[int]], None]) -> None:
        self._runtime, self._inputs, self._complete = runtime, inputs, complete
        self._names = runtime.info.input_names
        self._alone: dict[int, Batch] = {}
        self._error: BaseException | None = None
        self.batches: Counter[int] = Counter()

    def load(self, texts: Sequence[int]) -> None:
        """Make the batches of single texts, which is no part of the test."""
        self._alone = {text: self._inputs.batch([text], self._names) for text in set(texts)}

    def batch(self, texts: Sequence[int]) -> Batch:
        """These texts, padded to the longest."""
        if len(texts) == 1 and texts[0] in self._alone:
            return self._alone[texts[0]]
        return self._inputs.batch(texts, self._names)

    def answer(self, ids: list[int], texts: list[int]) -> None:
        """Run one batch. Never raises: it is called by LoadGen's own threads."""
        outputs = None
        try:
            if self._error is None:
                outputs = self._runtime.run(self.batch(texts))
        except BaseException as error:  # whatever it is, it must not unwind through LoadGen
            self._error = error
        self._complete(ids)
        self.batches[len(texts)] += 1
        if outputs is not None and not all(np.isfinite(values).all() for values in outputs.values()):
            self._error = UserError(f"an answer to text {texts[0] + 1} and its batch is not a finite number")

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error


@contextmanager
def serving(answerer: Answerer, most: int) -> Iterator[Issue]:
    """One thread that answers what waits in a queue, at most `most` queries together; give it work with the `Issue`."""
    waiting: SimpleQueue[tuple[int, int] | None] = SimpleQueue()

    def issue(ids: list[int], texts: list[int]) -> None:
        for query in zip(ids, texts, strict=True):
            waiting.put(query)

    def serve() -> None:
        while (first := waiting.get()) is not None:
            together = [first]
            while len(together) < most:
                try:
                    query = waiting.get_nowait()
                except Empty:
                    break
                if query is None:
                    waiting.put(None)
                    break
                together.append(query)
            answerer.answer([number for number, _ in together], [text for _, text in together])

    thread = Thread(target=serve, name="serve")
    thread.start()
    try:
        yield issue
    finally:
        waiting.put(None)
        thread.join()


def _by_length(inputs: Inputs, texts: Sequence[int]) -> Iterator[list[int]]:
    """Places in `texts` that share a batch, as an artifact serves them."""
    return batches_by_length([len(inputs.evaluation[text]["input_ids"]) for text in texts])


@contextmanager
def _issuing(answerer: Answerer, inputs: Inputs, traffic: Traffic) -> Iterator[Issue]:
    """How queries of a scenario are answered: at once in LoadGen's thread, or from the queue."""

    def by_length(ids: list[int], texts: list[int]) -> None:
        for part in _by_length(inputs, texts):
            answerer.answer([ids[place] for place in part], [texts[place] for place in part])

    if traffic.scenario is Scenario.SERVER:
        with serving(answerer, traffic.max_batch) as issue:
            yield issue
    elif traffic.scenario is Scenario.OFFLINE:
        yield by_length
    else:
        yield answerer.answer


def drive(runtime: Runtime, inputs: Inputs, traffic: Traffic, folder: Path) -> Observed:
    """Run one test on the evaluation texts; LoadGen's log files stay in `folder`.

    Garbage collection waits meanwhile. Raises `UserError` where LoadGen is not installed or an answer is not finite,
    and what the runtime raises.
    """
    if find_spec(PACKAGE) is None:
        raise UserError(f"this needs {PACKAGE}, which is not installed", f"pip install 'steelyard[{EXTRA}]'")
    import mlperf_loadgen as loadgen

    def complete(ids: list[int]) -> None:
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(number, 0, 0) for number in ids])

    answerer = Answerer(runtime, inputs, complete)
    rehearsal = _rehearse(runtime, answerer, inputs, traffic)
    count = len(inputs.evaluation)
    library = loadgen.ConstructQSL(count, count, answerer.load, lambda texts: None)
    with without_collection(), _issuing(answerer, inputs, traffic) as issue:
        system = loadgen.ConstructFastSUT(issue, lambda: None)
        loadgen.StartTestWithLogSettings(
            system,
            library,
            _settings(loadgen, traffic, rehearsal),
            _log_settings(loadgen, folder),
            str(folder / "audit.config"),  # LoadGen would take one from the working folder
        )
    loadgen.DestroyFastSUT(system)
    loadgen.DestroyQSL(library)
    answerer.check()
    queries = read_queries(folder / "mlperf_log_trace.json", by_sample=traffic.scenario is Scenario.OFFLINE)
    return Observed(
        judgement=read_judgement(folder),
        latencies_s=tuple(query.complete_ns / 1e9 for query in queries),
        issue_delays_s=tuple(query.issue_start_ns / 1e9 for query in queries),
        batches=dict(sorted(answerer.batches.items())),
        rehearsal_s=rehearsal.samples_s,
    )


class _Rehearsal(msgspec.Struct, frozen=True):
    """Seconds of each call, and the rows of a second in the last pass."""

    samples_s: tuple[float, ...]
    rows_per_s: float


def _rehearse(runtime: Runtime, answerer: Answerer, inputs: Inputs, traffic: Traffic) -> _Rehearsal:
    """Warm up on batches of the scenario's kind, spread evenly over the texts, until their times are level."""
    every = range(len(inputs.evaluation))
    parts: list[Sequence[int]] = []
    match traffic.scenario:
        case Scenario.OFFLINE:
            many = list(islice(cycle(every), max(len(every), REHEARSED * BATCH_ROWS)))
            parts = _spread([[many[place] for place in part] for part in _by_length(inputs, many)])
        case Scenario.SERVER:
            parts = [*_spread(inputs.evaluation_rows(traffic.max_batch)), *([text] for text in _spread(every))]
        case Scenario.MULTI_STREAM:
            parts = _spread(inputs.evaluation_rows(MULTI_STREAM_SAMPLES))
        case Scenario.SINGLE_STREAM:
            parts = [[text] for text in _spread(every)]
    batches = [answerer.batch(part) for part in parts]
    samples, _ = warm_up(runtime, batches, min(REHEARSAL_S, traffic.duration_s))
    rows = sum(len(part) for part in parts)
    return _Rehearsal(tuple(samples), rows / sum(samples[-len(batches) :]))


def _spread(items: Sequence[Any]) -> list[Any]:
    count = min(REHEARSED, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def _settings(loadgen: Any, traffic: Traffic, rehearsal: _Rehearsal) -> Any:
    """LoadGen's `TestSettings`. Seeds are its own, so that every candidate meets the same queries at the same times."""
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, SCENARIOS[traffic.scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(1e3 * traffic.duration_s))
    settings.max_duration_ms = max(1, round(1e3 * traffic.longest_s))
    settings.min_query_count = traffic.least_queries
    fastest_ns = max(1, round(1e9 * min(rehearsal.samples_s)))  # so that it makes queries enough
    quantile = QUANTILES.get(traffic.scenario)
    match traffic.scenario:
        case Scenario.SINGLE_STREAM:
            settings.single_stream_expected_latency_ns = fastest_ns
            settings.single_stream_target_latency_percentile = quantile
        case Scenario.MULTI_STREAM:
            settings.multi_stream_expected_latency_ns = fastest_ns
            settings.multi_stream_target_latency_percentile = quantile
            settings.multi_stream_samples_per_query = MULTI_STREAM_SAMPLES
        case Scenario.OFFLINE:
            settings.offline_expected_qps = HEADROOM * rehearsal.rows_per_s
        case Scenario.SERVER:
            if traffic.rate_per_s is None or traffic.bound_s is None or traffic.most_waiting is None:
                raise ValueError("the server scenario has a rate and a bound")
            settings.server_target_qps = traffic.rate_per_s
            settings.server_target_latency_ns = round(1e9 * traffic.bound_s)
            settings.server_target_latency_percentile = quantile
            settings.server_max_async_queries = traffic.most_waiting
    return settings


def _log_settings(loadgen: Any, folder: Path) -> Any:
    """Everything goes into `folder`; the trace has the latency of every sample."""
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    settings = loadgen.LogSettings()
    settings.log_output = output
    settings.enable_trace = True
    return settings


class Sample(msgspec.Struct, frozen=True):
    """A sample in LoadGen's trace: nanoseconds from when it was due to when it was issued and answered."""

    sample_seq: int
    query_seq: int
    sample_idx: int
    issue_start_ns: int
    complete_ns: int


class _Event(msgspec.Struct):
    args: Sample


_EVENTS = msgspec.json.Decoder(_Event)


def read_queries(path: Path, *, by_sample: bool = False) -> list[Sample]:
    """The queries of a trace in the order they were due, each by the last of its samples that was answered; or every
    sample."""
    last: dict[int, Sample] = {}
    with path.open("rb") as file:
        for line in file:
            if b'"complete_ns"' not in line:
                continue
            sample = _EVENTS.decode(line.strip().rstrip(b",")).args
            key = sample.sample_seq if by_sample else sample.query_seq
            if key not in last or sample.complete_ns > last[key].complete_ns:
                last[key] = sample
    return [last[key] for key in sorted(last)]


RATES = ("result_completed_samples_per_sec", "result_samples_per_second", "result_qps_with_loadgen_overhead")
"""Where LoadGen tells what was done in a second: server, offline, single-stream."""


class _Line(msgspec.Struct):
    key: str
    value: Any


_LINES = msgspec.json.Decoder(_Line)


def read_judgement(folder: Path) -> Judgement:
    """What LoadGen's summary and its detailed log say.

    Raises `RuntimeError` when they are not there or do not say whether the result is valid.
    """
    summary = _read(folder / "mlperf_log_summary.txt")
    found = re.search(r"^Result is : (VALID|INVALID)\n.*?(?=\n\s*\n|\n=|\Z)", summary, re.DOTALL | re.MULTILINE)
    if found is None:
        raise RuntimeError(f"LoadGen's summary has no result: {summary[:400]}")
    told = dict(re.findall(r"^ +(.+?) satisfied *: (\w+)", found[0], re.MULTILINE))
    detail: dict[str, Any] = {}
    errors = []
    for line in _read(folder / "mlperf_log_detail.txt").splitlines():
        if line.startswith(":::MLLOG "):
            entry = _LINES.decode(line.removeprefix(":::MLLOG "))
            detail[entry.key] = entry.value
            if entry.key.startswith("error_"):
                errors.append(str(entry.value))
    bound = told.get("Performance constraints")
    return Judgement(
        valid=found[1] == "VALID",
        bound_met=None if bound is None else bound == "Yes",
        duration_met=told["Min duration"] == "Yes",
        queries_met=told["Min queries"] == "Yes",
        early_stopping_met=told["Early stopping"] == "Yes",
        queries=int(detail["result_query_count"]),
        samples_per_s=next((float(detail[name]) for name in RATES if name in detail), None),
        words=(*(line.strip() for line in found[0].splitlines()), *errors),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise RuntimeError(f"LoadGen wrote no {path.name}") from error
