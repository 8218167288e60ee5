"""LoadGen itself drives engines that sleep, fail or answer nonsense; its log files are read, by hand-made ones too."""

import gc
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from errors import UserError
from measure import loadgen
from measure.loadgen import Answerer, drive, read_judgement, read_queries, serving
from measure.percentiles import upper_bound
from measure.search import Outcome, outcome
from measure.traffic import Observed, Scenario, Traffic
from measure.workload import Inputs
from runtimes.base import Batch, Outputs
from tests.fakes import FakeClock, FakeRuntime

SHORT = 0.1
Drives = Callable[..., Observed]


class Engine(FakeRuntime):
    """Takes `call_s` for each call, and `stall_s` for the one that has the number `stalls_at`."""

    def __init__(self, call_s: float = 0.001, stall_s: float = 0.0, stalls_at: int = -1) -> None:
        super().__init__(FakeClock())
        self.call_s, self.stall_s, self.stalls_at = call_s, stall_s, stalls_at

    def run(self, batch: Batch) -> Outputs:
        time.sleep(self.stall_s if len(self.batches) == self.stalls_at else self.call_s)
        return super().run(batch)


@pytest.fixture
def drives(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drives]:
    """Open an engine and let LoadGen drive it after three passes of rehearsal."""
    monkeypatch.setattr(loadgen, "REHEARSAL_S", 0.0)

    def run(engine: FakeRuntime, scenario: Scenario, **given: Any) -> Observed:
        usual = Traffic(scenario=scenario, duration_s=SHORT, max_batch=4)
        if scenario is Scenario.SERVER:
            usual = msgspec.structs.replace(usual, rate_per_s=2000.0, bound_s=10.0)
        with engine:
            return drive(engine, inputs, msgspec.structs.replace(usual, **given), tmp_path)

    gc.freeze()  # what other tests left behind need not be looked at before every pass
    yield run
    gc.unfreeze()


def rows(batch: Batch) -> int:
    return len(batch["input_ids"])


def test_single_stream_sends_one_text_at_a_time_without_padding(drives: Drives, inputs: Inputs) -> None:
    engine = Engine(0.001)
    seen = drives(engine, Scenario.SINGLE_STREAM)
    assert seen.judgement.valid
    assert seen.judgement.bound_met is None
    assert seen.judgement.queries == len(seen.latencies_s) >= 64
    assert seen.batches == {1: seen.judgement.queries}
    assert len(seen.rehearsal_s) + seen.judgement.queries == len(engine.batches)
    lengths = {len(item["input_ids"]) for item in inputs.evaluation}
    assert {batch["input_ids"].shape[1] for batch in engine.batches} == lengths
    assert all(batch["attention_mask"].all() for batch in engine.batches)
    assert min(seen.latencies_s) >= 0.001


@pytest.mark.parametrize(("scenario", "quantile"), [(Scenario.SINGLE_STREAM, 0.9), (Scenario.MULTI_STREAM, 0.99)])
def test_our_bound_is_the_early_stopping_estimate_that_loadgen_prints(
    drives: Drives, scenario: Scenario, quantile: float
) -> None:
    seen = drives(Engine(), scenario, duration_s=1.0)
    (line,) = (line for line in seen.judgement.words if f"{100 * quantile}th percentile estimate" in line)
    assert upper_bound(seen.latencies_s, quantile) == int(line.rpartition(" ")[2]) / 1e9


def test_multi_stream_sends_eight_texts_together(drives: Drives) -> None:
    seen = drives(Engine(), Scenario.MULTI_STREAM, duration_s=1.0)
    assert seen.judgement.valid
    assert seen.judgement.queries == len(seen.latencies_s) >= 662
    assert seen.batches == {8: seen.judgement.queries}


def test_offline_sends_all_at_once_and_batches_them_by_length(drives: Drives, inputs: Inputs) -> None:
    engine = Engine(0.002)
    seen = drives(engine, Scenario.OFFLINE)
    assert seen.judgement.queries == 1
    assert len(seen.latencies_s) == sum(count * number for number, count in seen.batches.items())
    driven = engine.batches[len(seen.rehearsal_s) :]
    assert Counter(rows(batch) for batch in driven) == seen.batches
    assert max(seen.batches) == 32
    lengths = [batch["input_ids"].shape[1] for batch in driven]
    assert lengths == sorted(lengths)
    each = Counter(len(item["input_ids"]) for item in inputs.evaluation)
    assert set(lengths) <= set(each)
    assert seen.judgement.samples_per_s == pytest.approx(len(seen.latencies_s) / max(seen.latencies_s), rel=1e-3)


def test_a_server_answers_every_query_and_joins_those_that_wait(drives: Drives) -> None:
    seen = drives(Engine(0.002), Scenario.SERVER)
    assert seen.judgement.valid
    assert seen.judgement.bound_met
    assert seen.judgement.queries == len(seen.latencies_s) == len(seen.issue_delays_s) >= 662
    assert sum(number * count for number, count in seen.batches.items()) == seen.judgement.queries
    assert max(seen.batches) == 4  # 2,000 a second are more than 500 calls a second can answer one by one
    assert all(0 <= delay <= latency for delay, latency in zip(seen.issue_delays_s, seen.latencies_s, strict=True))


def test_whoever_waits_behind_a_slow_answer_is_late_too(drives: Drives) -> None:
    """One call of 0.3 s while 500 queries a second are due: a closed loop would see a single slow answer."""
    closed = drives(Engine(0.001, stall_s=0.3, stalls_at=50), Scenario.SINGLE_STREAM)
    seen = drives(Engine(0.001, stall_s=0.3, stalls_at=150), Scenario.SERVER, rate_per_s=500.0, bound_s=0.1)
    assert sum(latency > 0.3 for latency in closed.latencies_s) == 1
    late = sum(latency > 0.1 for latency in seen.latencies_s)
    assert late >= 50  # of about 100 that were due in the first 0.2 s of it
    assert outcome(seen, 0.1) is Outcome.LATE


def test_a_bound_that_no_answer_keeps_is_hopeless(drives: Drives) -> None:
    seen = drives(Engine(0.002), Scenario.SERVER, rate_per_s=300.0, bound_s=0.0005)
    assert not seen.judgement.valid
    assert seen.judgement.bound_met is False
    assert "Performance constraints satisfied : NO" in seen.judgement.words
    assert outcome(seen, 0.0005) is Outcome.HOPELESS


def test_too_few_queries_are_called_invalid_in_loadgens_words(drives: Drives) -> None:
    seen = drives(Engine(0.01), Scenario.SINGLE_STREAM, duration_s=0.02)  # 0.12 s at most
    assert seen.judgement.queries <= 13
    assert not seen.judgement.valid
    assert not seen.judgement.early_stopping_met
    assert any("Need to process at least 64 queries" in line for line in seen.judgement.words)


def test_a_rate_far_too_high_ends_early_and_says_so(drives: Drives) -> None:
    seen = drives(Engine(0.005), Scenario.SERVER, rate_per_s=50_000.0, bound_s=0.02)
    assert seen.judgement.queries < 50_000 * SHORT
    assert outcome(seen, 0.02) is Outcome.LATE
    assert any("Too many outstanding queries" in line for line in seen.judgement.words)


class Broken(Engine):
    """Fails after `good` calls: raises, or answers what is no number."""

    def __init__(self, good: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.good, self.error = good, error

    def run(self, batch: Batch) -> Outputs:
        outputs = super().run(batch)
        if len(self.batches) <= self.good:
            return outputs
        if self.error is not None:
            raise self.error
        return {"logits": np.where(np.arange(2) == 1, np.nan, outputs["logits"]).astype(np.float32)}


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("error", [ZeroDivisionError("broke"), KeyboardInterrupt("stop"), None])
def test_an_engine_that_fails_midway_ends_the_test_with_its_error(
    drives: Drives, scenario: Scenario, error: BaseException | None
) -> None:
    engine = Broken(70, error)
    with pytest.raises(type(error) if error else UserError, match=str(error) if error else "not a finite number"):
        drives(engine, scenario)
    assert len(engine.batches) == 71  # nothing is run after the first failure


def test_no_thread_stays(drives: Drives) -> None:
    drives(Engine(), Scenario.SERVER)
    assert [thread.name for thread in threading.enumerate() if thread.name == "serve"] == []


def test_without_loadgen_the_way_out_is_told(drives: Drives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadgen, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="mlperf_loadgen, which is not installed") as caught:
        drives(Engine(), Scenario.OFFLINE)
    assert caught.value.hint == "pip install 'steelyard[loadgen]'"


class Gate(Engine):
    """Waits at each call until it is let on; `arrived` is released when it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, batch: Batch) -> Outputs:
        self.arrived.release()
        assert self.go.acquire(timeout=30)
        return super().run(batch)


@pytest.fixture
def told() -> list[list[int]]:
    return []


@pytest.fixture
def gate(inputs: Inputs, told: list[list[int]]) -> Iterator[tuple[Gate, Answerer]]:
    with Gate() as engine:
        yield engine, Answerer(engine, inputs, told.append)


def test_what_waits_is_run_together_up_to_the_most(
    gate: tuple[Gate, Answerer], told: list[list[int]], inputs: Inputs
) -> None:
    engine, answerer = gate
    with serving(answerer, most=3) as issue:
        issue([10], [5])
        assert engine.arrived.acquire(timeout=30)  # it runs, and five more come
        for number, text in zip(range(11, 16), (0, 1, 2, 3, 4), strict=True):
            issue([number], [text])
        engine.go.release(3)
    assert told == [[10], [11, 12, 13], [14, 15]]
    assert answerer.batches == {1: 1, 2: 1, 3: 1}
    expected = inputs.batch([0, 1, 2], engine.info.input_names)
    for name, array in engine.batches[1].items():
        np.testing.assert_array_equal(array, expected[name])


TRACE = """{"traceEvents":[
{"name":"Waiting","ph":"X","pid":1,"tid":1,"ts":187.462,"dur":0.040,"args":{}},
{"name":"LogDetail","ph":"X","pid":1,"tid":2,"ts":10.149,"dur":13.550,"args":{"key":""loadgen_version""}},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":3,"ts":9.0,"args":{"sample_seq":3,"query_seq":1,"sample_idx":5,"issue_start_ns":7,"complete_ns":400}},
{"name":"Sample","cat":"default","ph":"e", "pid":1,"id":3,"ts":9.4},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":1.0,"args":{"sample_seq":0,"query_seq":0,"sample_idx":2,"issue_start_ns":0,"complete_ns":300}},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":1,"ts":1.0,"args":{"sample_seq":1,"query_seq":0,"sample_idx":4,"issue_start_ns":0,"complete_ns":200}},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":2,"ts":9.0,"args":{"sample_seq":2,"query_seq":1,"sample_idx":1,"issue_start_ns":7,"complete_ns":100}}
"""


def test_a_query_is_answered_with_its_last_sample(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(TRACE)
    assert [(query.complete_ns, query.sample_idx) for query in read_queries(path)] == [(300, 2), (400, 5)]
    assert [sample.complete_ns for sample in read_queries(path, by_sample=True)] == [300, 200, 100, 400]


SUMMARY = """================================================
MLPerf Results Summary
================================================
SUT name : PyFastSUT
Scenario : Server
Mode     : PerformanceOnly
Scheduled samples per second : 199.50
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Reduce target QPS to improve latency.
Early Stopping Result:
 * Run unsuccessful.

================================================
Additional Stats
================================================
Completed samples per second    : 180.25
Result is : VALID
"""
DETAIL = """:::MLLOG {"key": "loadgen_version", "value": "6", "time_ms": 0.1, "metadata": {"is_error": false}}
:::MLLOG {"key": "result_query_count", "value": 1999, "time_ms": 0.1, "metadata": {"is_error": false}}
:::MLLOG {"key": "result_completed_samples_per_sec", "value": 180.254, "time_ms": 0.1}
:::MLLOG {"key": "error_runtime", "value": "Ending early: why not", "time_ms": 0.1, "metadata": {"is_error": true}}
"""


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "mlperf_log_summary.txt").write_text(SUMMARY)
    (tmp_path / "mlperf_log_detail.txt").write_text(DETAIL)
    return tmp_path


def test_the_judgement_is_loadgens_own(logs: Path) -> None:
    found = read_judgement(logs)
    assert (found.valid, found.bound_met, found.duration_met, found.queries_met) == (False, False, True, True)
    assert (found.early_stopping_met, found.queries, found.samples_per_s) == (False, 1999, 180.254)
    assert found.words == (
        "Result is : INVALID",
        "Performance constraints satisfied : NO",
        "Min duration satisfied : Yes",
        "Min queries satisfied : Yes",
        "Early stopping satisfied: NO",
        "Recommendations:",
        "* Reduce target QPS to improve latency.",
        "Early Stopping Result:",
        "* Run unsuccessful.",
        "Ending early: why not",
    )


@pytest.mark.parametrize("damage", ["", re.sub(r"Result is : .*", "", SUMMARY), None])
def test_a_summary_without_a_result_is_no_judgement(logs: Path, damage: str | None) -> None:
    path = logs / "mlperf_log_summary.txt"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(RuntimeError, match=r"no result|wrote no mlperf_log_summary\.txt"):
        read_judgement(logs)


def test_the_seeds_are_fixed_so_that_all_meet_the_same_queries(drives: Drives, tmp_path: Path) -> None:
    orders = []
    for _ in range(2):
        seen = drives(Engine(), Scenario.SERVER)
        orders.append([query.sample_idx for query in read_queries(tmp_path / "mlperf_log_trace.json")])
        assert seen.judgement.valid
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == 6
    assert any(one != other for one, other in pairwise(orders[0]))
