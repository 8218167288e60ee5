"""Pairs of hand-made blocks. The base takes 8 s for every call, so that logarithms to base 2 are whole numbers."""

from collections.abc import Mapping, Sequence
from math import log

import msgspec
import pytest

from measure.pairing import base_of, log_gains, log_speeds, looks
from measure.records import BlockSamples, Measurement, Role
from tests.report.records import SLOW, measurements

SHAPES = {"1×16": ((1, 16),), "8×16": ((8, 16),)}
TOGETHER, APART = (200.0, 210.0), (200.0, 390.0)
BOTH = ("1×16", "8×16")

Rounds = Mapping[str, Sequence[float]]


def process(
    rounds: Rounds, *, replicate: int = 0, apart: Sequence[tuple[str, int]] = (), seen: bool = True
) -> Measurement:
    """A process whose calls of each workload take so many seconds, round after round; before or after those of `apart`
    CPUs lay apart."""
    (item,) = measurements("ort-cpu/fp32", SLOW, replicates=[replicate], role=Role.CANDIDATE)
    blocks = tuple(
        BlockSamples(
            workload=name,
            round=number,
            primer_s=0.0,
            samples_s=(seconds,) * 3,
            core_latency_ns=(APART if (name, number) in apart else TOGETHER) if seen else (),
        )
        for name, values in rounds.items()
        for number, seconds in enumerate(values)
    )
    return msgspec.structs.replace(item, blocks=blocks)


def base(replicate: int = 0, **given: object) -> Measurement:
    return process(dict.fromkeys(BOTH, (8.0,) * 3), replicate=replicate, **given)  # type: ignore[arg-type]


def powers(logs: Sequence[float]) -> list[float]:
    return [value / log(2) for value in logs]


def test_a_speed_is_the_mean_over_workloads_of_the_median_over_rounds() -> None:
    mine = process({"1×16": (4.0, 2.0, 1.0), "8×16": (8.0, 8.0, 0.5)})
    assert powers(log_speeds([mine], [base()], SHAPES, BOTH)) == pytest.approx([(2 + 0) / 2])
    assert powers(log_speeds([mine], [base()], SHAPES, ("1×16",))) == pytest.approx([2])


def test_only_rounds_of_the_same_replicate_are_divided() -> None:
    mine = [process({"1×16": (4.0,)}, replicate=number) for number in range(3)]
    assert len(log_speeds(mine, [base(0), base(2), base(3)], SHAPES, ("1×16",))) == 2
    assert log_speeds(mine, [base(0)], SHAPES, BOTH) == []


def test_several_processes_of_a_replicate_are_one_base() -> None:
    """Of 8 s and 2 s the geometric mean is 4 s; in a round that one of them lacks the other is the base alone."""
    control = process({"1×16": (2.0,)})
    mine = process({"1×16": (1.0, 1.0)})
    assert powers(log_speeds([mine], [base(), control], SHAPES, ("1×16",))) == pytest.approx([(2 + 3) / 2])


def test_candidates_are_divided_by_anchor_and_control_and_all_others_by_one() -> None:
    roles = (Role.ANCHOR, Role.CONTROL, Role.CANDIDATE)
    every = {role: measurements("ort-cpu/fp32", SLOW, role=role, replicates=[0]) for role in roles}
    anchor, control, candidate = (items[0].entrant for items in every.values())
    known = {items[0].entrant: items for items in every.values()}
    both = [*every[Role.ANCHOR], *every[Role.CONTROL]]
    assert base_of(known, anchor, candidate) == both
    assert base_of(known, anchor, control) == every[Role.ANCHOR]
    assert base_of(known, anchor, anchor) == every[Role.ANCHOR]
    assert base_of(known, candidate, anchor) == every[Role.CANDIDATE]


def test_rounds_with_cpus_apart_are_left_out_of_either_side() -> None:
    rounds = {"1×16": (4.0, 2.0, 1.0), "8×16": (8.0, 8.0, 8.0)}
    mine = [process(rounds, replicate=number, apart=[("1×16", 0)]) for number in range(3)]
    theirs = [base(number, apart=[("1×16", 1)]) for number in range(3)]
    assert powers(log_speeds(mine, theirs, SHAPES, ("1×16",))) == pytest.approx([3, 3, 3])
    seen = [base(number) for number in range(3)]
    assert powers(log_speeds(mine, seen, SHAPES, ("1×16",))) == pytest.approx([2.5, 2.5, 2.5])


def test_where_too_few_processes_are_left_those_with_cpus_apart_count() -> None:
    rounds = {"1×16": (4.0, 4.0)}
    never = [("1×16", 0), ("1×16", 1)]

    def speeds(count: int, lying_apart: int) -> list[float]:
        left_out = [never if number < lying_apart else () for number in range(count)]
        mine = [process(rounds, replicate=number, apart=places) for number, places in enumerate(left_out)]
        return log_speeds(mine, [base(number) for number in range(count)], SHAPES, ("1×16",))

    assert len(speeds(4, 1)) == 3
    assert len(speeds(4, 2)) == 4
    assert len(speeds(2, 1)) == 2


def test_without_looks_nothing_is_left_out() -> None:
    mine = [process({"1×16": (4.0, 2.0, 1.0)}, replicate=number, seen=False) for number in range(3)]
    theirs = [base(number, seen=False) for number in range(3)]
    assert powers(log_speeds(mine, theirs, SHAPES, ("1×16",))) == pytest.approx([2, 2, 2])
    assert looks(mine[0]) == []


def test_a_gain_divides_workloads_of_the_same_round_with_cpus_together() -> None:
    rounds = {"1×16": (8.0, 8.0, 8.0), "8×16": (4.0, 2.0, 1.0)}
    items = [process(rounds, replicate=number, apart=[("8×16", 0)]) for number in range(3)]
    assert powers(log_gains(items, SHAPES, "1×16", "8×16")) == pytest.approx([2.5] * 3)
    assert powers(log_gains([process(rounds)], SHAPES, "1×16", "8×16")) == pytest.approx([2])
    assert log_gains([process({"1×16": (8.0,)})], SHAPES, "1×16", "8×16") == []
