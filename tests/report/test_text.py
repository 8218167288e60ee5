"""What people read: figures, tables, Markdown, the choice and its card."""

import itertools
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from artifact.records import read_json
from artifact.run_folder import RunFolder
from errors import GateFailed, UserError
from measure.records import Measurement, Record, Role, append
from measure.statistics import Decision
from report.choice import choose, make_card
from report.figures import fraction, rate, seconds, size, times
from report.files import read_verdict, write_verdict
from report.judge import judge
from report.markdown import render
from report.tables import control, energy, headline, on_device, slow_calls, summary, what_ran, why_not
from report.terminal import show_verdict
from report.verdict import Ratio, Verdict, WorkloadResult
from runtimes.base import Executed
from tests.report.records import ASKED, SLOW, from_text, measurements, of_one_process, quality, session, usual


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.968, "3.97 s"),
        (0.0245, "24.5 ms"),
        (0.1652, "165 ms"),
        (1.004e-3, "1.00 ms"),
        (4.8e-7, "0.48 µs"),
        (0.0, "0.00 µs"),
        (None, "–"),
    ],
)
def test_seconds_take_the_fitting_unit(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_sizes_and_shares() -> None:
    assert (size(22_961_000), size(90_867_952), size(None)) == ("23.0 MB", "90.9 MB", "–")
    assert (fraction(0.9755), fraction(None)) == ("97.5 %", "–")


@pytest.mark.parametrize(
    ("value", "text"), [(1214.4, "1,214"), (99.96, "100.0"), (12.34, "12.3"), (0.5, "0.50"), (None, "–")]
)
def test_rates_have_three_digits_or_whole_numbers(value: float | None, text: str) -> None:
    assert rate(value) == text


def test_a_ratio_never_stands_without_its_interval() -> None:
    assert times(Ratio(ratio=2.96, low=2.42, high=3.333, decision=Decision.FASTER)) == "2.96× [2.42–3.33]"
    assert "too few runs" in times(Ratio(ratio=2.96, low=None, high=None, decision=Decision.INCONCLUSIVE))


def test_the_headline_answers_the_question_first() -> None:
    lines = headline(judge(usual()))
    assert lines[0].startswith("Ship ort-cpu/int8-dynamic: 4.00× [")
    assert "the speed of torch-cpu/fp32" in lines[0]
    assert "0.828 on 1000 examples (-0.2 points from torch-cpu/fp32, 95 % interval" in lines[1]
    assert any("20 batched by length, 21 at batch 1" in line for line in lines)
    assert any("more examples would tell" in line for line in lines)


def test_the_rejected_and_the_beaten_are_told_why() -> None:
    verdict = judge(usual(int8_scores=(quality(0.80, wins=10, losses=40),)))
    table = why_not(verdict)
    assert table
    reasons = {row[0]: row[1] for row in table.rows}
    assert reasons["ort-cpu/int8-dynamic"].startswith("accuracy 0.800")
    assert reasons["torch-cpu/fp32"].startswith("it needs its own engine")
    assert "ort-cpu/fp32" not in reasons  # which is recommended
    lines = headline(verdict)
    assert any(line.startswith("torch-cpu/bf16 is the fastest that keeps its accuracy") for line in lines)


def test_nothing_to_ship_is_said() -> None:
    records: list[Record] = [
        session(),
        *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),)),
    ]
    assert headline(judge(records))[0].startswith("Nothing that was measured can be recommended")


def test_the_recommended_row_stands_out_and_the_baseline_comes_first() -> None:
    table = summary(judge(usual()))
    names = [cells[0] for cells in table.rows]
    assert names[:3] == ["torch-cpu/fp32", "torch-cpu/fp32 (A/A)", "ort-cpu/int8-dynamic"]
    assert table.strong == {2}


def test_the_control_is_explained() -> None:
    assert "equivalent" in control(judge(usual()))
    assert control(judge([session()])) == "A/A control: none was measured."


def test_markdown_is_complete_and_well_formed() -> None:
    text = render(judge(usual()))
    for words in ("# Which runtime", "**ort-cpu/int8-dynamic**", "A/A control", "torch finds no CUDA GPU", "Test CPU"):
        assert words in text
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_device_alone_is_told_only_where_there_is_one() -> None:
    plain = judge(usual())
    assert on_device(plain) is None
    assert "On the device alone" not in render(plain)
    asked = (*ASKED, "torch-cuda/fp32")
    on_gpu = measurements("torch-cuda/fp32", {"1×16": 0.002, "8×natural": 0.016}, device_share=0.75)
    verdict = judge([session(asked=asked), *usual()[1:], *on_gpu])
    table = on_device(verdict)
    assert table
    assert table.headers == ("candidate", "1×16", "8×natural")
    assert table.rows == (("torch-cuda/fp32", "1.50 ms\n(+ 25 % of 2.00 ms)", "12.0 ms\n(+ 25 % of 16.0 ms)"),)
    assert "| torch-cuda/fp32 | 1.50 ms (+ 25 % of 2.00 ms) |" in render(verdict)
    assert {item.device_s for row in verdict.rows for item in row.workloads if row.runtime != "torch-cuda"} == {None}


def test_a_device_that_seems_slower_than_the_way_to_it_has_no_negative_share() -> None:
    result = WorkloadResult(workload="1×16", batch_s=0.001, device_s=0.0011, samples=1, speed=None)
    assert result.overhead_fraction == 0


def test_copies_between_host_and_device_are_told() -> None:
    executed = Executed.of(("MatMul float", "MemcpyToHost int64"), conversions=0, copies=1)
    records = [
        msgspec.structs.replace(item, executed=executed) if isinstance(item, Measurement) else item for item in usual()
    ]
    table = what_ran(judge(records))
    assert {row[table.headers.index("copies")] for row in table.rows} == {"1"}


def test_texts_are_told_where_they_were_asked_for_and_nowhere_else() -> None:
    text = render(judge(from_text()))
    line = "| torch-cpu/fp32 | 80.0 | 25.0 % | 100 | 1.25× [1.25–1.25] faster |"
    for words in ("## From raw text to label: texts per second", line, "| no engine | 2,000 | – | – | – |", "In turn,"):
        assert words in text
    usually = render(judge(usual()))
    assert "raw text" not in usually
    assert "In turn" not in usually


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_terminal_shows_every_name_and_ratio_at_any_width(width: int) -> None:
    out = Console(width=width, record=True, file=StringIO())
    show_verdict(out, judge(usual()))
    shown = out.export_text()
    assert "ort-cpu/int8-dynamic" in shown
    assert "4.00×" in shown
    assert "Ship" in shown


def test_the_winner_or_the_named_candidate_is_chosen() -> None:
    verdict = judge(usual())
    assert choose(verdict, None).name == "ort-cpu/int8-dynamic"
    assert choose(verdict, "ort-cpu/fp32").name == "ort-cpu/fp32"


@pytest.mark.parametrize(
    ("candidate", "kind", "words"),
    [
        ("torch-cpu/bf16", UserError, "does not run on CPUs without torch"),
        ("torch-cuda", UserError, "torch finds no CUDA GPU"),
        ("ort-cpu/int4", UserError, "was not measured"),
    ],
)
def test_what_cannot_be_packed_is_refused(candidate: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        choose(judge(usual()), candidate)


def test_the_rejected_are_not_packed() -> None:
    verdict = judge(usual(int8_scores=(quality(0.80, wins=10, losses=40),)))
    with pytest.raises(GateFailed, match=r"was rejected: accuracy 0\.800"):
        choose(verdict, "ort-cpu/int8-dynamic")


def test_the_card_carries_figures_with_their_intervals_and_machine() -> None:
    verdict = judge(usual())
    card = make_card(verdict, choose(verdict, None))
    assert [figure.workload for figure in card.figures] == ["1×16", "8×natural"]
    assert card.figures[0].ratio == pytest.approx(4.0, rel=0.005)
    assert card.figures[0].ratio_low is not None
    assert card.reference_accuracy_fraction == pytest.approx(0.83)
    assert card.memory_bytes == 100_000_000
    assert card.cpu_model == "Test CPU"


def test_files_are_derived_from_the_raw_records_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for record in usual():
        append(run.measurements, record)
    verdict = write_verdict(run)
    assert read_json(run.verdict, Verdict) == verdict == read_verdict(run)
    assert run.report.read_text(encoding="utf-8") == render(verdict)


def test_a_run_without_measurements_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_verdict(RunFolder(tmp_path))
    assert "steelyard compare" in caught.value.hint


def test_measurements_of_another_version_are_not_denied(tmp_path: Path) -> None:
    (tmp_path / "measurements.jsonl").write_text('{"type": "session", "schema_version": 0}\n')
    with pytest.raises(UserError, match="written by another version"):
        read_verdict(RunFolder(tmp_path))


def test_a_smoke_run_recommends_nothing() -> None:
    verdict = msgspec.structs.replace(judge(usual()), budget="smoke")
    assert "too short to decide" in headline(verdict)[0]
    assert "Ship" not in " ".join(headline(verdict))


def test_one_process_of_each_is_called_nothing() -> None:
    text = render(judge(of_one_process(usual())))
    assert "1 fresh process of each candidate × 2 interleaved rounds" in text
    assert (
        "inconclusive, 1.00× [too few runs] at 1×16; one process of each says nothing of this machine's noise" in text
    )
    assert "| ort-cpu/fp32 | not decided: 0.31× [too few runs] the speed of ort-cpu/int8-dynamic |" in text
    assert not any(
        words in text for words in ("scatter too much", "Too close to it", "too close to call", "95 % interval\n")
    )


def test_energy_is_told_where_there_are_counters_and_said_to_be_missing_elsewhere() -> None:
    records: list[Record] = [
        msgspec.structs.replace(
            item,
            blocks=tuple(msgspec.structs.replace(block, energy_j=0.5 * len(block.samples_s)) for block in item.blocks),
        )
        if isinstance(item, Measurement)
        else item
        for item in usual()
    ]
    table = energy(judge(records))
    assert table
    assert {cells[1:] for cells in table.rows} == {("0.50 J", "0.50 J")}
    assert energy(judge(usual())) is None
    assert "Energy: not available" in render(judge(usual()))
    assert "Energy: not available" not in render(judge(records))


def test_the_noise_stands_before_the_winner() -> None:
    text = render(judge(usual()))
    assert text.index("Noise: calls of the baseline vary by 0.0 %, +0.0 % from first process to last") < text.index(
        "Ship"
    )


def test_the_effort_says_how_many_rounds_there_were() -> None:
    records = usual()
    assert "4 fresh processes of each candidate × 2 interleaved rounds" in render(judge(records))
    last = max(place for place, item in enumerate(records) if isinstance(item, Measurement))
    item = records[last]
    assert isinstance(item, Measurement)
    records[last] = msgspec.structs.replace(item, blocks=tuple(block for block in item.blocks if block.round == 0))
    assert "4 fresh processes of each candidate × 1 to 2 interleaved rounds" in render(judge(records))
    hurried = [
        msgspec.structs.replace(item, blocks=tuple(block for block in item.blocks if block.round == 0))
        if isinstance(item, Measurement)
        else item
        for item in records
    ]
    assert "4 fresh processes of each candidate × 1 interleaved rounds" in render(judge(hurried))


def looked_at(*looks_ns: tuple[float, float]) -> list[Record]:
    """The usual records, whose blocks have these looks in turn."""
    found = itertools.cycle(looks_ns)
    return [
        msgspec.structs.replace(
            item, blocks=tuple(msgspec.structs.replace(block, core_latency_ns=next(found)) for block in item.blocks)
        )
        if isinstance(item, Measurement)
        else item
        for item in usual()
    ]


def test_the_noise_tells_how_far_apart_cpus_lay() -> None:
    assert "CPU to CPU" not in render(judge(usual()))
    assert "CPU to CPU: 200 ns there and back. A/A" in render(judge(looked_at((200.0, 200.0))))
    seldom = judge(looked_at(*[(200.0, 200.0)] * 9, (200.0, 400.0)))
    assert "200 ns there and back, 400 ns in 5.0 % of the looks, when they lie apart. A/A" in render(seldom)
    assert not any("apart" in warning for warning in seldom.warnings)


def test_cpus_that_often_lie_apart_are_a_warning() -> None:
    verdict = judge(looked_at((200.0, 200.0), (400.0, 400.0)))
    assert any("two CPUs lay apart in 50% of the looks" in warning for warning in verdict.warnings)


def test_what_is_undecided_says_what_it_would_take() -> None:
    near = {"1×16": 0.0099, "8×natural": 0.0792}
    restless = measurements("ort-cpu/fp32", near, scores=(quality(0.83),), portable=True, noise=(1.0, 1.05, 0.95, 1.0))
    records: list[Record] = [
        session(asked=("ort-cpu/fp32",)),
        *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),)),
        *restless,
    ]
    verdict = judge(records)
    (line,) = [line for line in headline(verdict) if line.startswith("About")]
    more = next(row.overall.more_processes for row in verdict.rows if row.name == "ort-cpu/fp32" and row.overall)
    assert line.startswith(f"About {more} more processes of ort-cpu/fp32 would decide its speed")


@pytest.mark.parametrize(
    ("bounds", "cell"),
    [
        ({"p90_s": 0.011, "p95_s": 0.012, "p99_s": 0.02}, "p99 ≤ 20.0 ms"),
        ({"p90_s": 0.011, "p95_s": 0.012}, "p95 ≤ 12.0 ms"),
        ({"p90_s": 0.011}, "p90 ≤ 11.0 ms"),
    ],
)
def test_slow_calls_are_told_as_far_as_the_sample_goes(bounds: dict[str, float], cell: str) -> None:
    verdict = judge(usual())
    assert slow_calls(verdict) is None  # at most 24 calls of a workload
    rows = tuple(
        msgspec.structs.replace(
            row, workloads=tuple(msgspec.structs.replace(item, **bounds) for item in row.workloads[:1])
        )
        for row in verdict.rows
    )
    table = slow_calls(msgspec.structs.replace(verdict, rows=rows))
    assert table
    assert {cells[1] for cells in table.rows} == {cell}
    assert "torch-cpu/fp32 (A/A)" not in {cells[0] for cells in table.rows}
