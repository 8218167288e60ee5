"""What is measured on, on records made by hand: the anchor takes 10 and 80 ms, noise is a factor for each process."""

from collections.abc import Sequence

import msgspec

from measure.adaptive import is_affordable, next_entrants
from measure.cost import next_seconds
from measure.records import Entrant, Measurement, Role
from tests.report.records import PLAN, SLOW, TWICE, measurements

SHAPES = {"1×16": ((1, 16),), "8×natural": ((8, 20), (8, 30))}
STEADY, RESTLESS = (1.0, 1.001, 0.999, 1.0005), (1.0, 1.1, 0.9, 1.02)
ANCHOR = measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR)
LAVISH = msgspec.structs.replace(PLAN, most_replicates=99, limit_s=1e6)


def measured(*groups: Sequence[Measurement]) -> dict[Entrant, list[Measurement]]:
    return {items[0].entrant: list(items) for items in (ANCHOR, *groups)}


def names(*groups: Sequence[Measurement]) -> set[str]:
    """Who is measured once more, beside the anchor, where anything is affordable."""
    found = measured(*groups)
    anchor, *others = next_entrants(found, tuple(found), SHAPES, 0.0, LAVISH) or (ANCHOR[0].entrant,)
    assert anchor == ANCHOR[0].entrant
    return {entrant.name for entrant in others}


def test_what_is_clear_is_left_alone() -> None:
    twice = measurements("ort-cpu/fp32", TWICE, noise=STEADY)
    control = measurements("torch-cpu/fp32", SLOW, role=Role.CONTROL, noise=STEADY)
    assert names(twice, control) == set()


def test_what_scatters_about_the_baseline_is_measured_on() -> None:
    control = measurements("torch-cpu/fp32", SLOW, role=Role.CONTROL, noise=RESTLESS)
    assert names(control) == {"torch-cpu/fp32 (A/A)"}


def test_two_that_are_both_clearly_faster_but_not_apart_are_measured_on_together() -> None:
    fast = measurements("ort-cpu/int8-dynamic", TWICE, noise=STEADY)
    rival = measurements("openvino-cpu/bf16", {name: 1.01 * value for name, value in TWICE.items()}, noise=RESTLESS)
    assert names(fast, rival) == {"ort-cpu/int8-dynamic", "openvino-cpu/bf16"}


def test_what_became_clear_with_its_last_process_is_measured_on_where_that_is_affordable() -> None:
    """Three processes that differ by 5 % are not clear even at twice the speed, four are."""
    late = measurements("ort-cpu/fp32", TWICE, noise=(1.0, 1.05, 0.95, 1.0))
    close = measurements("torch-cpu/bf16", SLOW, noise=RESTLESS)
    assert names(late, close) == {"ort-cpu/fp32", "torch-cpu/bf16"}
    found = measured(late, close)
    plan = msgspec.structs.replace(LAVISH, limit_s=100 + 2.1 * close[0].process_s)
    assert [entrant.name for entrant in next_entrants(found, tuple(found), SHAPES, 100, plan)] == [
        "torch-cpu/fp32",
        "torch-cpu/bf16",
    ]
    plan = msgspec.structs.replace(LAVISH, limit_s=100 + 1.9 * close[0].process_s)
    assert next_entrants(found, tuple(found), SHAPES, 100, plan) == []


def test_a_slow_one_that_scatters_does_not_hold_up_the_rest() -> None:
    fast = measurements("ort-cpu/int8-dynamic", {name: value / 20 for name, value in SLOW.items()}, noise=STEADY)
    other = measurements("ort-cpu/fp32", {name: 10 * value for name, value in SLOW.items()}, noise=RESTLESS)
    assert names(fast, other) == set()


def test_more_is_measured_only_while_number_and_seconds_allow_it() -> None:
    found = measured()
    (entrant,) = found
    next_s = next_seconds(ANCHOR, PLAN)
    plan = msgspec.structs.replace(PLAN, most_replicates=5, limit_s=100)
    assert is_affordable(found, [entrant], 100 - next_s - 0.01, plan)
    assert not is_affordable(found, [entrant], 100 - next_s + 0.01, plan)
    assert not is_affordable(found, [entrant], 0, msgspec.structs.replace(plan, most_replicates=4))
