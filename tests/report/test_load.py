"""What load tests say: bounds worked out by hand, the rate that holds, and what people read."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from artifact.precision import Precision
from artifact.run_folder import RunFolder
from measure.load_records import LoadRecord, append
from measure.machine import Load
from measure.search import Outcome
from measure.traffic import Scenario
from report.files import write_load
from report.load import Bounds, judge_load
from report.load_tables import invalid, load_headline, load_table, not_tested, reasons, tries_table
from report.markdown import render_load
from report.terminal import show_load
from tests.measure.test_percentiles import exact_rank
from tests.report.load_records import FAST, FEW, MILLISECONDS, NAMES, OBJECTIONS, driven, searched, session
from tests.report.records import failure

SINGLE, MULTI, OFFLINE, SERVER = Scenario


def usual() -> list[LoadRecord]:
    return [
        session(),
        driven(NAMES[0], SINGLE, MILLISECONDS, samples_per_s=3.0),
        driven(NAMES[0], MULTI, FEW, valid=False),
        driven(NAMES[0], OFFLINE, FEW, samples_per_s=512.4),
        *searched(),
        failure("torch-cpu", Precision.FP32, stage="single-stream", reason="was killed", hint="ask why"),
    ]


def test_bounds_are_order_statistics_and_only_where_there_are_queries_enough() -> None:
    report = judge_load(usual())
    single, multi, offline, _ = report.tests
    assert single.latency == Bounds(
        p50_s=MILLISECONDS[-exact_rank(662, 0.5)],
        p90_s=MILLISECONDS[-exact_rank(662, 0.9)],
        p99_s=0.662,
        p999_s=None,
    )
    assert multi.latency
    assert multi.latency.p50_s == FEW[-exact_rank(20, 0.5)]
    assert (multi.latency.p90_s, multi.latency.p99_s) == (None, None)
    assert offline.latency is None
    assert (offline.queries, offline.samples_per_s) == (1, 512.4)
    assert single.rows_per_batch == 1.75  # (300 × 1 + 100 × 4) / 400
    assert single.issue_delay_s == pytest.approx(0.662e-3)


def test_the_rate_that_holds_stands_between_its_neighbours() -> None:
    (found,) = judge_load(usual()).rates
    assert (found.name, found.held_per_s, found.missed_per_s) == (NAMES[0], 32.0, 38.0)
    assert found.missed_because is Outcome.UNSURE
    assert [item.rate_per_s for item in found.tries] == [16.0, 32.0, 38.0, 45.0, 64.0]
    assert judge_load(usual()).tests[-1].rate_per_s == 32.0


def test_a_fixed_rate_is_no_search() -> None:
    records: list[LoadRecord] = [session(rate_per_s=64.0, scenarios=(SERVER,)), *searched()]
    report = judge_load(records)
    assert report.rates == ()
    assert [item.rate_per_s for item in report.tests] == [64.0]
    assert load_headline(report) == ()
    assert tries_table(report) is None
    assert load_table(judge_load([session()])) is None


def test_only_the_newest_question_is_answered_whoever_measured_it() -> None:
    records: list[LoadRecord] = [
        session("s1", scenarios=(SINGLE,)),
        driven(NAMES[0], SINGLE, FEW),
        driven(NAMES[0], SINGLE, FAST, work="other"),
        session("s2", scenarios=(SINGLE,)),
    ]
    (found,) = judge_load(records).tests
    assert found.queries == 20
    assert judge_load([*records, session("s3", work="new")]).tests == ()
    (found,) = judge_load([*records, session("s3", work="other")]).tests
    assert found.queries == 1000


def test_nothing_recorded_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no session"):
        judge_load([])
    assert write_load(RunFolder(tmp_path)) is None
    assert not RunFolder(tmp_path).load_report.exists()


@pytest.mark.parametrize(
    ("tries", "sentence"),
    [
        ([0, 1, 2], "holds 32.0 queries a second with p99 within 100 ms; 64.0 did not hold (p99 was late)."),
        ([0, 1], "holds 32.0 queries a second with p99 within 100 ms, the most that was tried."),
        ([2, 3], "holds no rate that was tried with p99 within 100 ms: 45.0 did not hold (p99 was late)."),
        ([4], "holds no rate that was tried with p99 within 100 ms: 38.0 did not hold (too few queries to be sure)."),
    ],
)
def test_the_answer_is_a_sentence(tries: list[int], sentence: str) -> None:
    picked = [searched()[number] for number in tries]
    records: list[LoadRecord] = [session(asked=NAMES[:1], scenarios=(SERVER,)), *picked]
    assert load_headline(judge_load(records)) == (f"{NAMES[0]} {sentence}",)


def test_the_tables_say_what_loadgen_says() -> None:
    report = judge_load(usual())
    table = load_table(report)
    assert table
    rows = table.rows
    assert [row[:4] for row in rows] == [
        (NAMES[0], "single-stream", "VALID", "662"),
        (NAMES[0], "multi-stream", "INVALID", "20"),
        (NAMES[0], "offline", "VALID", "1"),
        (NAMES[0], "server at 32.0/s", "VALID", "1,000"),
    ]
    assert rows[0][6:] == ("662 ms", "–", "3.00")
    assert rows[2][4:] == ("–", "–", "–", "–", "512")
    tries = tries_table(report)
    assert tries
    assert [(row[1], row[2], row[-1]) for row in tries.rows] == [
        ("16.0", "VALID", "held"),
        ("32.0", "VALID", "held"),
        ("38.0", "INVALID", "too few queries to be sure"),
        ("45.0", "INVALID", "p99 was late"),
        ("64.0", "INVALID", "p99 was late"),
    ]
    assert tries.strong == {1}
    missing = not_tested(report)
    assert missing
    assert missing.rows == (("torch-cpu/fp32", "single-stream", "was killed", "ask why"),)


def test_loadgens_reasons_are_its_own_words() -> None:
    assert reasons(OBJECTIONS) == ("Performance constraints satisfied : NO", "* Reduce target QPS to improve latency.")
    records: list[LoadRecord] = [
        session(scenarios=(SINGLE,)),
        driven(NAMES[0], SINGLE, FEW, valid=False, words=OBJECTIONS),
    ]
    (line,) = invalid(judge_load(records))
    assert line.startswith(f"{NAMES[0]}, single-stream: INVALID: Performance constraints satisfied : NO")


def test_a_busy_machine_is_a_warning() -> None:
    busy = Load(watched_s=1.0, busy_fraction=0.5, steal_fraction=0.2)
    found = judge_load([session(load=busy), *searched()]).warnings
    assert [line.split(" used ")[0].split(" took ")[0] for line in found] == [
        "other programs",
        "other virtual machines",
    ]
    assert judge_load(usual()).warnings == ()


def test_the_report_is_complete_and_well_formed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for record in usual():
        append(run.load, record)
    report = write_load(run)
    text = run.load_report.read_text(encoding="utf-8")
    assert report == judge_load(usual())
    assert text == render_load(report)
    for words in (
        "# How many requests",
        "holds 32.0",
        "**32.0**",
        "was killed",
        "· * Reduce target QPS",
        "Poisson",
    ):
        assert words in text
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize("width", [60, 118, 200])
def test_the_terminal_shows_every_verdict_at_any_width(width: int) -> None:
    out = Console(width=width, record=True, file=StringIO())
    show_load(out, judge_load(usual()))
    shown = out.export_text()
    for words in (NAMES[0], "INVALID", "32.0"):
        assert words in shown
