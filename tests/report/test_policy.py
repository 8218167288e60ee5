"""Limits and objectives, on the usual records: int8 takes a quarter of the baseline's time, bf16 half, ORT fp32 0.8."""

import msgspec
import pytest

from measure.records import Measurement, Record, Role
from report.judge import judge
from report.pareto import front
from report.policy import Objective, Policy
from report.verdict import Row, Verdict
from tests.report.records import SLOW, measurements, quality, usual


def row(verdict: Verdict, name: str) -> Row:
    return next(row for row in verdict.rows if row.name == name)


def with_bytes(records: list[Record], **sizes: int) -> list[Record]:
    """Model sizes by precision."""
    return [
        msgspec.structs.replace(item, model_bytes=sizes[item.precision.name.lower()])
        if isinstance(item, Measurement) and item.precision.name.lower() in sizes
        else item
        for item in records
    ]


def test_latency_looks_at_the_smallest_batch_and_throughput_at_the_largest() -> None:
    records = usual(int8_seconds={"1×16": 0.0125, "8×natural": 0.010})  # slower alone, eight times as fast in company
    alone, company = (judge(records, Policy(objective=item)) for item in (Objective.LATENCY, Objective.THROUGHPUT))
    assert (alone.deployable, company.deployable) == ("ort-cpu/fp32", "ort-cpu/int8-dynamic")
    found = row(company, "ort-cpu/int8-dynamic").overall
    assert found
    assert found.ratio == pytest.approx(8, rel=0.005)
    found = row(alone, "ort-cpu/int8-dynamic").overall
    assert found
    assert found.ratio == pytest.approx(0.8, rel=0.005)


def test_size_prefers_the_smallest_file_and_then_the_fastest() -> None:
    records = with_bytes(usual(), fp32=90_000_000, int8_dynamic=23_000_000)
    assert judge(records, Policy(objective=Objective.SIZE)).deployable == "ort-cpu/int8-dynamic"
    slow = with_bytes(
        usual(int8_seconds={name: 2 * value for name, value in SLOW.items()}), fp32=90_000_000, int8_dynamic=23_000_000
    )
    verdict = judge(slow, Policy(objective=Objective.SIZE))
    assert verdict.deployable == "ort-cpu/int8-dynamic"
    assert "90.0 MB" in (row(verdict, "ort-cpu/fp32").lost or "")
    assert judge(slow).deployable == "ort-cpu/fp32"  # smaller alone is no reason


def test_a_slower_one_is_never_recommended_for_its_size_unless_that_was_asked() -> None:
    slow = with_bytes(
        usual(int8_seconds={name: 0.9 * value for name, value in SLOW.items()}), fp32=90_000_000, int8_dynamic=1_000
    )
    assert {judge(slow, Policy(objective=item)).deployable for item in Objective} == {
        "ort-cpu/fp32",
        "ort-cpu/int8-dynamic",
    }
    assert judge(slow, Policy(objective=Objective.SIZE)).deployable == "ort-cpu/int8-dynamic"
    assert judge(slow).deployable == "ort-cpu/fp32"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(max_size_bytes=22_999_999), "its file has 23.0 MB, and 23.0 MB are allowed"),
        (Policy(max_memory_bytes=99_000_000), "it holds 100 MB of memory, and 99 MB are allowed"),
        (Policy(max_p95_s=0.1), "its p95 at 1×16 is not known from 24 calls, and 130 are needed"),
    ],
)
def test_a_limit_keeps_a_candidate_out_and_says_so(policy: Policy, words: str) -> None:
    verdict = judge(usual(), policy)
    assert verdict.deployable is None
    assert words in (row(verdict, "ort-cpu/int8-dynamic").reason or "")
    assert verdict.policy == policy


def test_a_p95_is_the_bound_that_so_many_calls_allow() -> None:
    """130 calls are just enough: the slowest of them is the bound."""
    records = usual()
    many = [
        msgspec.structs.replace(
            item,
            blocks=tuple(
                msgspec.structs.replace(block, samples_s=(*block.samples_s * 50, 0.2)[: 50 * len(block.samples_s)])
                for block in item.blocks
            ),
        )
        if isinstance(item, Measurement)
        else item
        for item in records
    ]
    verdict = judge(many)
    by_workload = {result.workload: result for result in row(verdict, "torch-cpu/fp32").workloads}
    assert by_workload["1×16"].samples == 4 * 2 * 150
    assert by_workload["1×16"].p95_s == pytest.approx(0.010)
    assert by_workload["1×16"].p99_s == pytest.approx(0.010)
    few = {result.workload: result for result in row(judge(records), "torch-cpu/fp32").workloads}
    assert (few["1×16"].p90_s, few["1×16"].p95_s) == (None, None)
    assert judge(many, Policy(max_p95_s=0.03)).deployable == "ort-cpu/int8-dynamic"  # 2.5 and 20 ms
    assert judge(many, Policy(max_p95_s=0.019)).deployable is None


def test_more_accuracy_may_be_given_up() -> None:
    records = usual(int8_scores=(quality(0.80, wins=10, losses=40),))
    assert judge(records).deployable == "ort-cpu/fp32"
    assert judge(records, Policy(max_accuracy_drop=0.05)).deployable == "ort-cpu/int8-dynamic"


def test_each_that_lost_has_its_reason() -> None:
    verdict = judge(usual())
    assert row(verdict, "ort-cpu/int8-dynamic").lost is None
    assert row(verdict, "torch-cpu/bf16").lost == "it needs its own engine where it is deployed"
    assert (row(verdict, "ort-cpu/fp32").lost or "").endswith("the speed of ort-cpu/int8-dynamic")
    assert (row(verdict, "ort-cpu/fp32").lost or "").startswith("0.31×")
    near = judge(usual(int8_seconds={"1×16": 0.008 * 1.003, "8×natural": 0.064 * 0.999}))
    (rival,) = near.close
    assert (row(near, rival).lost or "").startswith("too close to call: ")


def test_nobody_beats_those_on_the_front_in_everything() -> None:
    assert front([(1, 5), (2, 4), (3, 4), (2, 3), (3, 1), (1, 5)]) == (0, 2, 5)
    assert front([]) == ()


def test_the_front_of_speed_and_accuracy() -> None:
    """int8 is the fastest, bf16 is more accurate (0.831) than anything else; fp32 is neither."""
    assert set(judge(usual()).pareto) == {"ort-cpu/int8-dynamic", "torch-cpu/bf16"}


def test_noise_is_the_spread_of_the_anchors_calls_and_its_drift() -> None:
    records: list[Record] = [
        *usual()[:1],
        *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),), noise=(1.0, 1.2, 0.9, 1.1)),
    ]
    found = judge(records).noise
    assert found
    assert found.call_fraction == 0  # every call of a block takes the same time here
    assert found.drift_fraction == pytest.approx(0.1)
