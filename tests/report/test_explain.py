"""Sentences on expected and measured speed, from records made by hand."""

from collections.abc import Mapping

import msgspec
import pytest

from measure.records import Measurement, Record, Session
from measure.workload import Phase, WorkloadSpec
from report.explain import explanations
from report.judge import judge
from runtimes.base import Executed
from tests.report.records import SLOW, of_one_process, usual


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


def of_a_language_model(read_s: float, write_s: float, file_bytes: int, tokens: int = 16) -> list[str]:
    """What is said of ort-cpu/int8-dynamic with such a file, which reads so many tokens and writes one in so many
    seconds. ORT fp32 takes 8 and 64 ms, and its file has 640 MB: 10 GB/s."""
    records: list[Record] = []
    for item in usual(int8_seconds={"1×16": read_s, "8×natural": write_s}):
        if isinstance(item, Session):
            read = WorkloadSpec(name="1×16", batch_size=1, shapes=((1, tokens),), phase=Phase.READ)
            write = WorkloadSpec(name="8×natural", batch_size=1, shapes=((1, 1), (1, 1)), phase=Phase.WRITE)
            item = msgspec.structs.replace(item, workloads=(read, write))
        if isinstance(item, Measurement) and item.runtime == "ort-cpu":
            sizes = {"ort-cpu/fp32": 640_000_000, "ort-cpu/int8-dynamic": file_bytes}
            item = msgspec.structs.replace(item, step_bytes=sizes[item.entrant.name])
        records.append(item)
    return [line for line in explanations(judge(records)) if line.startswith("ort-cpu/int8-dynamic")]


def test_a_language_models_reading_is_explained_by_arithmetic_and_its_writing_by_bytes() -> None:
    reads, writes = of_a_language_model(0.004, 0.020, 160_000_000)
    assert reads == (
        "ort-cpu/int8-dynamic reads at 2.00× the speed of ort-cpu/fp32, though it was not to be faster: this CPU has "
        "no instructions for int8."
    )
    assert writes == (
        "ort-cpu/int8-dynamic writes at 3.20× the speed of ort-cpu/fp32, whose file is 4.0 times as large: it goes "
        "through 8.0 GB of weights a second, and no file as large is gone through much faster (ort-cpu/fp32: 10.0), so "
        "it may wait for memory."
    )


def test_what_goes_through_fewer_bytes_than_memory_gives_is_told_to_wait_for_its_kernels() -> None:
    assert of_a_language_model(0.004, 0.032, 160_000_000)[1].endswith(
        "it goes through 5.0 GB of weights a second, where ort-cpu/fp32 goes through 10.0, so it waits for its kernels "
        "and not for memory."
    )


def test_a_smaller_file_that_is_read_faster_proves_nothing_of_memory() -> None:
    """A cache may hold it: the rate of fp32's own file, which is as large, is what counts."""
    faster = of_a_language_model(0.004, 0.004, 160_000_000)[1]
    assert "it goes through 40.0 GB of weights a second, and no file as large is gone through much faster" in faster


def test_behind_a_long_prompt_keys_and_values_count_and_nothing_is_said_of_weights() -> None:
    assert len(of_a_language_model(0.004, 0.020, 160_000_000, tokens=256)) == 2
    assert len(of_a_language_model(0.004, 0.020, 160_000_000, tokens=257)) == 1


def test_blocks_of_few_bits_are_no_claim_of_arithmetic() -> None:
    words = "121 of 121 matrix products have weights in blocks of few bits"
    assert words in told(("avx512_vnni",), {"MatMulNBits float": 121}, None, 0.4)


def test_nothing_is_made_of_what_one_process_did() -> None:
    assert explanations(judge(of_one_process(usual()))) == ()
