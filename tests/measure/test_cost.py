"""What was spent and what one more process costs, on records made by hand."""

import msgspec
import pytest

from measure.cost import next_seconds, spent_seconds
from measure.records import Measurement, Record, Role
from tests.report.records import PLAN, SLOW, measurements, session

ANCHOR = measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR)
PROCESS_S = 1 + 1 + 2 * (9 + 0.03 + 9 + 0.32)
"""A cold start, a warm-up, and two rounds of two blocks: a primer, and 3 calls of 0.01 s or 4 of 0.08 s."""


def one(name: str, role: Role, session_name: str, session_s: float | None) -> Measurement:
    """One process of the first replicate, which takes `PROCESS_S`."""
    (made,) = measurements(name, SLOW, role=role, replicates=[0], noise=(1.0,), session_name=session_name)
    return msgspec.structs.replace(made, session_s=session_s)


def test_a_process_costs_its_start_its_warm_up_and_its_blocks() -> None:
    assert ANCHOR[0].process_s == pytest.approx(PROCESS_S)
    assert ANCHOR[0].start_s == pytest.approx(2)
    assert ANCHOR[0].round_s == pytest.approx((PROCESS_S - 2) / 2)
    blocks = tuple(msgspec.structs.replace(block, wait_s=0.1) for block in ANCHOR[0].blocks)
    waited = msgspec.structs.replace(ANCHOR[0], blocks=blocks)
    assert waited.process_s == pytest.approx(ANCHOR[0].process_s + 4 * 0.1)


def test_one_more_process_costs_what_lean_ones_do_and_before_them_as_many_rounds() -> None:
    (full, *_) = ANCHOR
    assert next_seconds([full], PLAN) == pytest.approx(PROCESS_S)
    plan = msgspec.structs.replace(PLAN, lean_rounds=1)
    assert next_seconds([full], plan) == pytest.approx(2 + (PROCESS_S - 2) / 2)
    lean = msgspec.structs.replace(full, replicate=4, blocks=full.blocks[:1])
    assert next_seconds([full, lean], plan) == pytest.approx(lean.process_s)
    assert next_seconds([full, lean], PLAN) == pytest.approx((PROCESS_S + 2 + 2 * 9.03) / 2)
    second = msgspec.structs.replace(lean, replicate=1)
    assert next_seconds([full, second], msgspec.structs.replace(plan, full_replicates=1)) == lean.process_s


def test_what_was_spent_is_the_share_of_each_session_that_measured_these() -> None:
    """A session of 200 s with two processes of 38.7 s, one of 100 s with one of them, and one that measured neither."""
    anchor = [one("torch-cpu/fp32", Role.ANCHOR, "s1", 150.0), one("torch-cpu/fp32", Role.ANCHOR, "s2", 100.0)]
    other = [one("ort-cpu/fp32", Role.CANDIDATE, "s1", 200.0)]
    third = one("ort-cpu/fp32", Role.CANDIDATE, "s3", 300.0)
    known: list[Record] = [session("s1"), session("s2"), session("s3"), *anchor, *other, third]
    assert spent_seconds(known, {anchor[0].entrant: anchor, other[0].entrant: other}) == pytest.approx(300)
    assert spent_seconds(known, {anchor[0].entrant: anchor}) == pytest.approx(100 + 100)
    assert spent_seconds(known, {}) == 0


@pytest.mark.parametrize("session_s", [None, 1.0])
def test_no_session_lasted_less_than_its_processes(session_s: float | None) -> None:
    """Records of earlier versions do not say how long it was."""
    item = one("torch-cpu/fp32", Role.ANCHOR, "s1", session_s)
    assert spent_seconds([session("s1"), item], {item.entrant: [item]}) == pytest.approx(PROCESS_S)
