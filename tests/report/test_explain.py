"""Sentences on expected and measured speed, from records made by hand."""

from collections.abc import Mapping

import msgspec
import pytest

from measure.records import Measurement, Record, Session
from report.explain import explanations
from report.judge import judge
from runtimes.base import Executed
from tests.report.records import SLOW, usual


def told(features: tuple[str, ...], kernels: Mapping[str, int], conversions: int | None, factor: float) -> str:
    """What is said of ort-cpu/int8-dynamic when it takes `factor` times the baseline's time; ORT fp32 takes 0.8."""
    executed = Executed(kernels=dict(kernels), conversions=conversions)
    records: list[Record] = []
    for item in usual(int8_seconds={name: factor * value for name, value in SLOW.items()}):
        if isinstance(item, Session):
            item = msgspec.structs.replace(item, machine=msgspec.structs.replace(item.machine, cpu_features=features))
        if isinstance(item, Measurement) and item.entrant.name == "ort-cpu/int8-dynamic":
            item = msgspec.structs.replace(item, executed=executed)
        records.append(item)
    return next(line for line in explanations(judge(records)) if line.startswith("ort-cpu/int8-dynamic"))


KERNELS = {"MatMulIntegerToFloat float": 18, "DynamicQuantizeMatMul float": 20, "MatMul float": 6, "Reshape float": 36}


def test_what_was_expected_is_explained() -> None:
    assert told(("avx2", "avx512_vnni"), KERNELS, 6, 0.25) == (
        "ort-cpu/int8-dynamic has 3.20× the speed of ort-cpu/fp32: this CPU has avx512_vnni, 38 of 44 matrix products "
        "compute in int8, 6 kernels only convert number types."
    )


@pytest.mark.parametrize(
    ("features", "factor", "words"),
    [
        (("avx2",), 1.6, "0.50× the speed of ort-cpu/fp32: this CPU has no instructions for int8"),
        (
            ("avx512_vnni",),
            1.6,
            "0.50× the speed of ort-cpu/fp32, though it was to be faster: this CPU has avx512_vnni",
        ),
        (("avx2",), 0.4, "2.00× the speed of ort-cpu/fp32, though it was not to be faster"),
    ],
)
def test_what_was_not_expected_says_so(features: tuple[str, ...], factor: float, words: str) -> None:
    assert words in told(features, KERNELS, 6, factor)


def test_a_precision_without_kernels_of_its_own_is_seen_through() -> None:
    words = "none of 42 matrix products compute in int8, 58 kernels only convert number types"
    assert words in told((), {"MatMul float": 42}, 58, 1.0)


def test_nothing_is_made_up_where_the_engine_does_not_tell() -> None:
    assert told(("avx512_vnni",), {"linear": 38}, None, 0.4).endswith("this CPU has avx512_vnni.")


def test_only_what_ran_beside_its_own_fp32_is_explained() -> None:
    names = [line.partition(" ")[0] for line in explanations(judge(usual()))]
    assert sorted(names) == ["ort-cpu/int8-dynamic", "torch-cpu/bf16"]
