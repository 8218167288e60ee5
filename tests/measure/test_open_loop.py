"""Load tests of a fake engine, in real worker processes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

import psutil
import pytest

from artifact.precision import Precision
from errors import UserError
from measure import open_loop
from measure.load_records import LoadRecord, LoadSession, LoadTest, append, load
from measure.machine import watch_load
from measure.open_loop import LoadTask, load_test
from measure.records import Failure
from measure.search import Outcome, bracket
from measure.traffic import Scenario
from runtimes.base import Candidate
from tests.conftest import TEXTS
from tests.measure.conftest import MakeSource

FP32, BF16, INT8 = (
    Candidate("fake", precision) for precision in (Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC)
)
SINGLE, SERVER = Scenario.SINGLE_STREAM, Scenario.SERVER
MakeTask = Callable[..., LoadTask]


@pytest.fixture
def make_task(make_source: MakeSource, tmp_path: Path, fake_engine: None, monkeypatch: pytest.MonkeyPatch) -> MakeTask:
    monkeypatch.setattr(open_loop, "watch_load", lambda: watch_load(0.01))

    def make(words: dict[Precision, str] | None = None, **changes: Any) -> LoadTask:
        task = LoadTask(
            source=make_source(words or {Precision.FP32: "good"}),
            texts=TEXTS,
            data="texts.csv",
            candidates=(FP32,),
            scenarios=(SINGLE,),
            duration_s=0.05,
            bound_s=5.0,
            max_batch=4,
            records=tmp_path / "run" / "load.jsonl",
            threads=1,
        )
        return replace(task, **changes)

    return make


def driven(records: Sequence[LoadRecord]) -> list[LoadTest]:
    return [record for record in records if isinstance(record, LoadTest)]


def failures(records: Sequence[LoadRecord]) -> list[Failure]:
    return [record for record in records if isinstance(record, Failure)]


def test_every_scenario_is_a_record_with_what_ran_and_every_latency(make_task: MakeTask) -> None:
    task = make_task(scenarios=tuple(Scenario), rate_per_s=2000.0)
    records = load_test(task)
    assert records == load(task.records)
    (session,) = (record for record in records if isinstance(record, LoadSession))
    found = driven(records)
    assert [record.traffic.scenario for record in found] == list(Scenario)
    assert {record.fingerprint for record in found} == {session.asked["fake/fp32"]}
    assert {record.info.threads for record in found} == {1}
    assert (session.data, session.examples, session.bound_s) == ("texts.csv", 6, 5.0)
    assert session.versions["mlcommons-loadgen"].startswith("6.")
    for record in found:
        assert len(record.observed.latencies_s) >= 64
        assert record.traffic.duration_s == 0.05
    assert [record.traffic.rate_per_s for record in found] == [None, None, None, 2000.0]


def test_what_is_done_is_not_done_again_and_needs_no_process(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    once = driven(load_test(task))
    monkeypatch.setattr(open_loop, "WorkerProcess", None)
    assert driven(load_test(task)) == once


@pytest.mark.parametrize(
    "changes",
    [
        {"duration_s": 0.06},
        {"bound_s": 4.0},
        {"max_batch": 3},
        {"texts": TEXTS[:5]},
        {"scenarios": (Scenario.SINGLE_STREAM, Scenario.OFFLINE)},
    ],
)
def test_another_question_is_measured_anew(make_task: MakeTask, changes: dict[str, Any]) -> None:
    task = make_task()
    once = len(driven(load_test(task)))
    assert len(driven(load_test(replace(task, **changes)))) == once + 1


def test_the_highest_rate_is_searched_for_and_every_try_is_kept(make_task: MakeTask) -> None:
    """An engine that takes no time is limited by Python; where, does not matter here."""
    task = make_task(scenarios=(SERVER,), bound_s=0.02)
    found = driven(load_test(task))
    outcomes = {record.traffic.rate_per_s or 0.0: record.outcome or Outcome.UNSURE for record in found}
    assert len(outcomes) == len(found) >= 2
    assert bracket(outcomes).missed or bracket(outcomes).held
    first = found[0].traffic.rate_per_s or 0.0
    assert log2(first) == round(log2(first))
    assert len(driven(load_test(task))) == len(found)  # done


def test_a_bound_that_cannot_be_kept_takes_one_try(make_task: MakeTask) -> None:
    (found,) = driven(load_test(make_task(scenarios=(SERVER,), bound_s=1e-9)))
    assert found.outcome is Outcome.HOPELESS


@pytest.mark.parametrize(
    ("word", "stage", "reason"),
    [
        ("refuses", "start", "the fake refuses"),
        ("dies", "start", "killed by signal 9"),
        ("dies-under-load", "single-stream", "killed by signal 9"),
        ("breaks-under-load", "single-stream", "ZeroDivisionError: the fake broke"),
        ("nan-under-load", "single-stream", "not a finite number"),
        ("hangs-under-load", "single-stream", "no answer within"),
    ],
)
def test_a_candidate_that_fails_is_a_row_with_its_reason_and_the_others_go_on(
    make_task: MakeTask, word: str, stage: str, reason: str
) -> None:
    words = {Precision.FP32: "good", Precision.BF16: word, Precision.INT8_DYNAMIC: "good"}
    records = load_test(make_task(words, candidates=(FP32, BF16, INT8), patience_s=2.0))
    (failed,) = failures(records)
    assert (failed.name, failed.stage) == ("fake/bf16", stage)
    assert reason in failed.reason
    assert [record.candidate for record in driven(records)] == [FP32, INT8]


def test_what_was_finished_before_an_interruption_is_kept_and_the_rest_done_later(make_task: MakeTask) -> None:
    task = make_task(scenarios=(SINGLE, SERVER), rate_per_s=2000.0)
    children = psutil.Process(os.getpid()).children

    def interrupted(stage: str, done: int, total: int, note: str = "") -> None:
        if "server" in note:
            raise KeyboardInterrupt

    before = {child.pid for child in children()}
    with pytest.raises(KeyboardInterrupt):
        load_test(task, interrupted)
    assert {child.pid for child in children()} <= before
    (kept,) = driven(load(task.records))
    assert kept.traffic.scenario is SINGLE
    assert [record.traffic.scenario for record in driven(load_test(task))] == [SINGLE, SERVER]


def test_a_candidate_that_cannot_run_is_refused_with_the_reason(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match=r"no candidate can run here; fake: .* has no bf16 variant"):
        load_test(make_task(candidates=(BF16,)))
    records = load_test(make_task(candidates=(BF16, FP32)))
    assert [(failed.name, failed.stage) for failed in failures(records)] == [("fake/bf16", "model")]
    assert [record.candidate for record in driven(records)] == [FP32]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration_s": 0.0}, "--duration-s has 0"),
        ({"duration_s": float("nan")}, "--duration-s has nan"),
        ({"bound_s": -0.1}, "--max-p99-ms has -100"),
        ({"rate_per_s": 0.0, "scenarios": (SERVER,)}, "--rate has 0"),
        ({"rate_per_s": float("inf"), "scenarios": (SERVER,)}, "--rate has inf"),
        ({"rate_per_s": 5.0}, "--rate is for the server scenario"),
        ({"rate_per_s": 1e8, "scenarios": (SERVER,)}, "more than 1,000,000 queries"),
    ],
)
def test_numbers_that_make_no_sense_name_their_flag(make_task: MakeTask, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_task(**changes)


def test_a_line_cut_short_is_left_out_and_the_next_is_whole(make_task: MakeTask) -> None:
    task = make_task()
    records = load_test(task)
    whole = task.records.read_bytes()
    task.records.write_bytes(whole[:-20])
    append(task.records, records[-1])
    assert load(task.records) == records
