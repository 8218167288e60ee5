from math import sqrt

import msgspec
import pytest

from artifact.precision import Precision
from measure.machine import Load
from measure.records import Measurement, Record, Role, Session
from measure.statistics import Decision
from report.judge import judge
from report.tables import certainty, noise
from report.verdict import Gate, Ratio, Row, Verdict
from tests.report.records import NOISE, SLOW, TWICE, failure, from_text, measurements, quality, session, usual


def row(verdict: Verdict, name: str) -> Row:
    return next(row for row in verdict.rows if row.name == name)


def test_the_fastest_that_passes_and_packs_is_recommended() -> None:
    verdict = judge(usual())
    assert verdict.deployable == verdict.fastest == "ort-cpu/int8-dynamic"
    assert verdict.baseline == "torch-cpu/fp32"
    assert verdict.close == ()


def test_ratios_are_those_of_the_scripted_times() -> None:
    verdict = judge(usual())
    speeds = {row.name: row.overall for row in verdict.rows if row.overall}
    assert speeds["torch-cpu/bf16"].ratio == pytest.approx(2.0, rel=0.005)
    assert speeds["ort-cpu/int8-dynamic"].ratio == pytest.approx(4.0, rel=0.005)
    assert speeds["ort-cpu/int8-dynamic"].decision is Decision.FASTER
    assert speeds["torch-cpu/fp32 (A/A)"].decision is Decision.EQUIVALENT
    assert verdict.control is Decision.EQUIVALENT


def test_the_overall_ratio_is_the_geometric_mean_over_workloads() -> None:
    mixed = {"1×16": 0.010 / 2, "8×natural": 0.080 / 8}
    verdict = judge(usual(int8_seconds=mixed))
    overall = row(verdict, "ort-cpu/int8-dynamic").overall
    assert overall is not None
    assert overall.ratio == pytest.approx(sqrt(2 * 8), rel=0.005)


def test_times_are_seconds_of_one_batch_not_of_a_pass() -> None:
    by_workload = {result.workload: result for result in row(judge(usual()), "torch-cpu/fp32").workloads}
    assert by_workload["8×natural"].batch_s == pytest.approx(0.080)
    assert by_workload["8×natural"].samples == 4 * 2 * 4
    assert by_workload["1×16"].batch_s == pytest.approx(0.010)


def test_texts_a_second_are_those_of_a_whole_pass() -> None:
    """16 texts in 0.2 s, in 0.16 s overlapped, and in 0.008 s without an engine."""
    verdict = judge(from_text())
    found = row(verdict, "torch-cpu/fp32").from_text
    assert found is not None
    assert found.texts_per_s == pytest.approx(80)
    assert found.overlapped_texts_per_s == pytest.approx(100)
    assert found.tokenise_fraction == pytest.approx(0.25)
    assert verdict.tokenizer_texts_per_s == pytest.approx(2000)


def test_from_text_a_batch_is_its_share_of_the_pass() -> None:
    by_workload = {result.workload: result for result in row(judge(from_text()), "torch-cpu/fp32").workloads}
    assert by_workload["8×text"].batch_s == pytest.approx(0.1)
    assert by_workload["8×text-overlapped"].batch_s == pytest.approx(0.08)
    assert by_workload["8×text"].samples == 4 * 2 * 3
    assert by_workload["8×natural"].batch_s == pytest.approx(0.080)


def test_the_gain_of_overlapping_is_paired_by_round() -> None:
    """The second round is ten times as slow; only a ratio within each round is 1.25 without any doubt."""
    found = row(judge(from_text(plain_s=(0.2, 2.0), overlapped_s=(0.16, 1.6))), "torch-cpu/fp32").from_text
    assert found is not None
    gain = found.gain
    assert gain is not None
    assert [gain.ratio, gain.low, gain.high] == pytest.approx([1.25] * 3)
    assert gain.decision is Decision.FASTER


@pytest.mark.parametrize("missing", ["text", "text-overlapped"])
def test_where_one_way_was_not_asked_for_there_is_no_gain(missing: str) -> None:
    head, *rest = from_text()
    assert isinstance(head, Session)
    kept = tuple(spec for spec in head.workloads if spec.from_text != missing)
    blocks = [
        msgspec.structs.replace(item, blocks=tuple(one for one in item.blocks if one.workload != f"8×{missing}"))
        for item in rest
        if isinstance(item, Measurement)
    ]
    verdict = judge([msgspec.structs.replace(head, workloads=kept), *blocks])
    found = row(verdict, "torch-cpu/fp32").from_text
    assert found is not None
    assert found.gain is None
    assert (found.texts_per_s is None) == (found.tokenise_fraction is None) == (missing == "text")
    assert (found.overlapped_texts_per_s is None) == (missing == "text-overlapped")
    assert verdict.tokenizer_texts_per_s == pytest.approx(2000)


def test_without_texts_nothing_is_said_of_them() -> None:
    verdict = judge(usual())
    assert {row.from_text for row in verdict.rows} == {None}
    assert verdict.tokenizer_texts_per_s is None


def test_memory_and_cold_start_are_above_the_baseline_and_the_median_of_processes() -> None:
    found = row(judge(usual()), "torch-cpu/fp32")
    assert found.memory_bytes == 100_000_000
    assert found.memory_pss_bytes == 108_000_000
    assert found.cold_start_s == pytest.approx(2.5)


def test_the_gate_rejects_before_speed_counts() -> None:
    verdict = judge(usual(int8_scores=(quality(0.80, wins=10, losses=40),)))
    rejected = row(verdict, "ort-cpu/int8-dynamic")
    assert verdict.deployable == "ort-cpu/fp32"
    assert verdict.fastest == "torch-cpu/bf16"
    assert rejected.quality is not None
    assert rejected.quality.gate is Gate.FAILED
    assert rejected.reason is not None
    assert "0.800" in rejected.reason
    assert "0.822" in rejected.reason  # 0.99 × 0.83


def test_the_worst_way_of_batching_is_gated() -> None:
    scores = (quality(0.83), quality(0.81, wins=5, losses=25, batch_size=8))
    found = row(judge(usual(int8_scores=scores)), "ort-cpu/int8-dynamic").quality
    assert found is not None
    assert (found.gate, found.batching) == (Gate.FAILED, "8")
    assert found.flips == {"served": 0, "8": 30}


@pytest.mark.parametrize(
    ("wins", "losses", "gate"),
    [(0, 0, Gate.PASSED), (9, 11, Gate.PASSED_UNSURE), (2, 11, Gate.FAILED)],
)
def test_the_gate_says_when_examples_are_too_few(wins: int, losses: int, gate: Gate) -> None:
    score = quality(0.83 + (wins - losses) / 1000, wins=wins, losses=losses)
    found = row(judge(usual(int8_scores=(score,))), "ort-cpu/int8-dynamic").quality
    assert found is not None
    assert found.gate is gate


def test_what_was_not_scored_is_not_recommended() -> None:
    records: list[Record] = [
        session(anchor="ort-cpu/fp32"),
        *measurements("ort-cpu/fp32", TWICE, role=Role.ANCHOR, portable=True),
    ]
    verdict = judge(records)
    assert verdict.deployable is None
    assert row(verdict, "ort-cpu/fp32").reason == "its answers were not scored"


def test_what_was_not_measured_is_a_row_with_its_reason() -> None:
    verdict = judge([*usual(), failure("ort-cpu", Precision.INT4, stage="model", reason="no int4 variant", hint="do")])
    missing = {row.name: (row.reason, row.remedy) for row in verdict.rows if not row.measured}
    assert missing == {
        "torch-cuda": ("torch finds no CUDA GPU", "check the driver"),
        "ort-cpu/int4": ("no int4 variant", "do"),
    }


def test_a_candidate_that_lost_processes_is_not_recommended() -> None:
    records = [record for record in usual() if getattr(record, "precision", None) != "int8-dynamic"]
    records += measurements(
        "ort-cpu/int8-dynamic",
        {"1×16": 1e-3, "8×natural": 1e-3},
        scores=(quality(0.83),),
        portable=True,
        replicates=(0,),
    )
    verdict = judge(records)
    assert verdict.deployable == "ort-cpu/fp32"
    assert row(verdict, "ort-cpu/int8-dynamic").reason == "only 1 of 4 processes were measured"


def test_a_rival_that_cannot_be_told_apart_is_named() -> None:
    near = {"1×16": 0.008 * 1.003, "8×natural": 0.064 * 0.999}
    assert judge(usual(int8_seconds=near)).close != ()


def test_only_the_newest_comparison_counts() -> None:
    old = usual(int8_scores=(quality(0.5, losses=330),))
    new: list[Record] = [
        session("s2", work="other data"),
        *measurements(
            "torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),), session_name="s2", work="other data"
        ),
    ]
    verdict = judge([*old, *new])
    assert [row.name for row in verdict.rows] == ["torch-cpu/fp32"]


def test_a_question_asked_again_is_answered_by_what_was_measured_for_it() -> None:
    """All candidates, then other work, then all candidates again: nothing is measured, the first answer returns."""
    other = measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, session_name="s2", work="batch 4")
    records: list[Record] = [*usual(), session("s2", work="batch 4"), *other, session("s3", load=None)]
    assert judge(records).deployable == judge(usual()).deployable
    assert judge(records).sessions == 1
    assert judge(records).harness_floor_s == 5e-7


def test_a_smaller_question_shows_only_what_was_asked() -> None:
    names = [row.name for row in judge([*usual(), session("s2", asked=("ort-cpu/fp32",))]).rows]
    assert names == ["torch-cpu/fp32", "torch-cpu/fp32 (A/A)", "ort-cpu/fp32"]


def test_failures_of_earlier_sessions_are_forgotten() -> None:
    assert "torch-cuda" not in {row.name for row in judge([*usual(), session("s2")]).rows}


def test_only_the_references_answers_open_the_gate() -> None:
    """An int8 artifact measured alone agrees with itself, which says nothing of its accuracy."""
    itself = msgspec.structs.replace(quality(0.7), reference="ort-cpu/int8-dynamic", reference_accuracy_fraction=0.7)
    records: list[Record] = [
        session(asked=("ort-cpu/int8-dynamic",), anchor="ort-cpu/int8-dynamic"),
        *measurements("ort-cpu/int8-dynamic", SLOW, role=Role.ANCHOR, scores=(itself,), portable=True),
    ]
    verdict = judge(records)
    found = row(verdict, "ort-cpu/int8-dynamic")
    assert found.quality is not None
    assert found.quality.gate is Gate.UNKNOWN
    assert verdict.deployable is None
    assert "reference has not answered" in (found.reason or "")


def test_ratios_pair_only_what_ran_interleaved() -> None:
    """A candidate measured in a later session beside a slower anchor is divided by that anchor."""
    slower = {name: 2 * value for name, value in SLOW.items()}
    records: list[Record] = [
        *usual()[:9],
        session("s2"),
        *measurements("torch-cpu/fp32", slower, role=Role.ANCHOR, session_name="s2"),
        *measurements("ort-cpu/fp32", SLOW, scores=(quality(0.83),), session_name="s2", portable=True, noise=NOISE),
    ]
    overall = row(judge(records), "ort-cpu/fp32").overall
    assert overall is not None
    assert overall.ratio == pytest.approx(2.0, rel=0.005)


def test_noise_is_said_aloud() -> None:
    busy = Load(watched_s=1.0, busy_fraction=0.4, steal_fraction=0.2)
    records: list[Record] = [
        session(load=busy),
        *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),), level=False),
        *measurements("torch-cpu/fp32", TWICE, role=Role.CONTROL, noise=NOISE),
    ]
    verdict = judge(records)
    assert verdict.control is Decision.FASTER
    said = " ".join(verdict.warnings)
    for words in ("A/A control shows a difference", "used 40%", "took 20%", "did not become level"):
        assert words in said


def test_a_control_that_differs_over_all_workloads_alone_is_alarming() -> None:
    """One workload's noise is the other's turned round: neither alone tells, and together they are 10 % faster."""
    aside = (1.2, 0.85, 1.1, 0.9)
    blocks = (
        measurements("torch-cpu/fp32", SLOW, role=Role.CONTROL, noise=[n / 1.1 for n in aside]),
        measurements("torch-cpu/fp32", SLOW, role=Role.CONTROL, noise=[1 / n / 1.1 for n in aside]),
    )
    control = [
        msgspec.structs.replace(
            short,
            blocks=tuple(
                block
                for item, workload in ((short, "1×16"), (natural, "8×natural"))
                for block in item.blocks
                if block.workload == workload
            ),
        )
        for short, natural in zip(*blocks, strict=True)
    ]
    anchor = measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),))
    verdict = judge([session(), *anchor, *control])
    found = row(verdict, "torch-cpu/fp32 (A/A)")
    assert {item.speed.decision for item in found.workloads if item.speed} == {Decision.INCONCLUSIVE}
    assert verdict.control is Decision.FASTER
    assert "1.10× [1.10–1.10] over all workloads; it should not differ" in noise(verdict)
    assert any("A/A control shows a difference" in warning for warning in verdict.warnings)


def test_what_it_takes_to_know_every_speed_to_three_per_cent() -> None:
    """±6 % of four processes: four times as many halve it, so twelve more, and baseline and control beside them."""
    verdict = judge(usual())
    spans = {"torch-cpu/fp32 (A/A)": 1.01, "ort-cpu/int8-dynamic": 1.05999}
    rows = tuple(
        msgspec.structs.replace(
            item,
            processes=4,
            process_s=10.0 if item.name == "ort-cpu/int8-dynamic" else 5.0,
            overall=Ratio(ratio=2.0, low=2.0 / span, high=2.0 * span, decision=Decision.FASTER),
        )
        for item in verdict.rows
        if (span := spans.get(item.name, 1.0)) and item.name in {*spans, "torch-cpu/fp32"}
    )
    assert len(rows) == 3
    told = certainty(msgspec.structs.replace(verdict, rows=rows))
    assert told.startswith("Speeds are known to ±1.0 % at best, ±6.0 % at worst; ")
    assert told.endswith("to know all to ±3 % takes about 4 minutes more (--budget).")
    settled = tuple(item for item in rows if item.name != "ort-cpu/int8-dynamic")
    assert certainty(msgspec.structs.replace(verdict, rows=settled)) == "Speeds are known to ±1.0 %."
    assert certainty(msgspec.structs.replace(verdict, rows=())) == ""


def test_a_frequency_that_wanders_is_a_warning() -> None:
    head, *rest = usual()
    assert isinstance(head, Session)
    machine = msgspec.structs.replace(head.machine, governor="powersave")
    (warning,) = judge([msgspec.structs.replace(head, machine=machine), *rest]).warnings
    assert "governor is powersave" in warning


@pytest.mark.parametrize(("commonest", "warned"), [(0.5, False), (0.84, False), (0.86, True)])
def test_a_reference_that_is_worse_than_the_commonest_label_is_a_warning(commonest: float, warned: bool) -> None:
    """PyTorch's 830 of 1,000 are 80.5 to 85.2 % by Wilson's interval."""
    score = msgspec.structs.replace(quality(0.83), commonest_fraction=commonest)
    records: list[Record] = [session(), *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(score,))]
    found = [warning for warning in judge(records).warnings if "commonest" in warning]
    assert [warning.partition(":")[0] for warning in found] == warned * [
        "torch-cpu/fp32 itself is right in 83% of the examples, and who always says their commonest label in 86%"
    ]


def test_a_quiet_machine_earns_no_warning() -> None:
    assert judge(usual()).warnings == ()


def test_without_a_session_there_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="no session"):
        judge([])
