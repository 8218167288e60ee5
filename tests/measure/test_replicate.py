"""One replicate with processes that only pretend, so that who was asked what, and when, can be read off."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pytest

from artifact.precision import Precision
from artifact.tokenizer import text_encoder
from measure import replicate, scoring
from measure.core_latency import CoreLatency
from measure.memory import MemoryReading
from measure.messages import (
    AnyRequest,
    Block,
    Explain,
    Explained,
    Open,
    Opened,
    Score,
    Scored,
    Timed,
    WarmUp,
    Weigh,
    Weighed,
)
from measure.process import WorkerFailed
from measure.records import Entrant, Role
from measure.reference import load_reference
from measure.replicate import PATIENCE_S, TRIES, Finished, GaveUp, Setting, run_replicate
from measure.scoring import Scorer
from measure.workload import FromText, Inputs, build_inputs
from runtimes.base import Candidate, Executed, RuntimeInfo
from runtimes.registry import REGISTRY
from tests.conftest import TEXTS
from tests.fakes import FAKE, INPUT_NAMES, FakeClock
from tests.measure.conftest import LIMITS, PLAN, MakeSource

MEMORY = MemoryReading(rss_bytes=3, uss_bytes=1, pss_bytes=2)
WORDS = {Precision.FP32: "good", Precision.BF16: "good", Precision.INT8_DYNAMIC: "good"}
FP32, BF16, INT8 = (Candidate("fake", precision) for precision in WORDS)
ANCHOR, CONTROL = Entrant(FP32, Role.ANCHOR), Entrant(FP32, Role.CONTROL)
OTHERS = [Entrant(BF16, Role.CANDIDATE), Entrant(INT8, Role.CANDIDATE)]
ENTRANTS = [ANCHOR, CONTROL, *OTHERS]
EXECUTED = Executed(kernels={"MatMul": 2}, conversions=0)
LOGITS = np.array([[0, 1]] * 6, dtype=np.float32)


TOGETHER, APART = 200.0, 350.0


class Cores(CoreLatency):
    """Looks that are made up, before and after each block; when they are over, nothing is seen. Pauses take their time
    on the clock."""

    def __init__(self, *looks_ns: float, clock: FakeClock | None = None) -> None:
        super().__init__(threads=1)
        self.script, self.clock = list(looks_ns), clock or FakeClock()
        self.settled: list[tuple[float, float]] = []

    def settle(self, least_s: float, most_s: float) -> float | None:
        self.settled.append((least_s, most_s))
        self.clock.advance(least_s)
        return self.look()

    def look(self) -> float | None:
        if not self.script:
            return None
        self._seen.append(self.script.pop(0))
        return self._seen[-1]


class Theatre:
    """All processes of a replicate; `log` holds who was asked what, `fails` when someone gives up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[int, AnyRequest | str]] = []
        self.names: dict[int, Precision] = {}
        self.fails: Callable[[Precision, AnyRequest], bool] = lambda precision, request: False
        theatre = self

        class Process:
            started = 0.0

            def __init__(self, threads: int) -> None:
                self.number = len(theatre.names)
                theatre.names[self.number] = Precision.FP32
                self.threads = threads

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *rest: object) -> None:
                self.close()

            def close(self) -> None:
                theatre.log.append((self.number, "closed"))

            def ask(self, request: AnyRequest, kind: type, timeout_s: float) -> Any:
                if isinstance(request, Open):
                    theatre.names[self.number] = request.candidate.precision
                theatre.log.append((self.number, request))
                if theatre.fails(theatre.names[self.number], request):
                    raise WorkerFailed("gave up", "hint")
                return answer(request, self.threads)

        monkeypatch.setattr(replicate, "WorkerProcess", Process)

    def asked(self, kind: type) -> list[tuple[int, Any]]:
        return [(number, request) for number, request in self.log if isinstance(request, kind)]


def answer(request: AnyRequest, threads: int) -> object:
    match request:
        case Open(candidate=candidate):
            info = RuntimeInfo(
                runtime="fake",
                engine="fake",
                engine_version="1",
                device="cpu",
                dtype=candidate.precision,
                threads=threads,
                input_names=INPUT_NAMES,
                options={},
            )
            return Opened(
                info=info,
                import_s=1,
                load_s=2,
                first_run_s=3,
                baseline_memory=MEMORY,
                loaded_memory=MEMORY,
            )
        case WarmUp(workload=workload):
            return Timed(samples_s=(0.0078125,) * (18 if workload else 3))
        case Block(passes=passes):
            return Timed(samples_s=(0.5,) * passes, device_samples_s=(0.25,) * passes, primer_s=9)
        case Score(path=path):
            np.savez(path, answers=LOGITS)
            return Scored(seconds_s=4)
        case Weigh():
            return Weighed(memory=MEMORY, peak_device_bytes=None)
        case Explain():
            return Explained(executed=EXECUTED)
    raise AssertionError(request)


@pytest.fixture
def theatre(monkeypatch: pytest.MonkeyPatch) -> Theatre:
    monkeypatch.setitem(REGISTRY, "fake", FAKE)
    return Theatre(monkeypatch)


@pytest.fixture
def setting(theatre: Theatre, inputs: Inputs, make_source: MakeSource, tmp_path: Path) -> Setting:
    return Setting(
        source=make_source(WORDS),
        plan=msgspec.structs.replace(PLAN, rounds=6, settle_s=0.25),
        threads=2,
        inputs=inputs,
        inputs_file=tmp_path / "inputs.npz",
        random=np.random.default_rng(1),
        step=lambda note: None,
        cores=Cores(),
        limit_at=inf,
    )


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    monkeypatch.setattr(scoring, "REFERENCE", ANCHOR.candidate)
    return Scorer(tmp_path / "reference.npz", "mark", [1, 1, 1, 0, 0, 0], (8, 1, 8), tmp_path)


def run(setting: Setting, scorer: Scorer | None = None, entrants: Sequence[Entrant] = ENTRANTS) -> list[Any]:
    return list(run_replicate(setting, entrants, "process 1", scorer))


def test_every_entrant_is_measured_in_its_own_process_in_every_round(theatre: Theatre, setting: Setting) -> None:
    outcomes = run(setting)
    assert all(isinstance(outcome, Finished) for outcome in outcomes)
    assert {outcome.entrant for outcome in outcomes} == set(ENTRANTS)
    assert outcomes[0].entrant == ANCHOR
    assert len(theatre.names) == 4
    for outcome in outcomes:
        told = Counter((block.workload, block.round) for block in outcome.blocks)
        assert told == {(name, number): 1 for name in ("2×4", "2×natural") for number in range(6)}
        assert [warm_up.workload for warm_up in outcome.warm_ups] == ["2×4", "2×natural"]
        assert {block.primer_s for block in outcome.blocks} == {9}
        assert {(len(block.samples_s), *block.device_samples_s) for block in outcome.blocks} == {
            (len(block.device_samples_s), *block.device_samples_s) for block in outcome.blocks
        }
        assert {sample for block in outcome.blocks for sample in block.device_samples_s} == {0.25}


def test_rounds_are_interleaved_in_an_order_that_changes(theatre: Theatre, setting: Setting) -> None:
    run(setting)
    blocks = theatre.asked(Block)
    turns = [blocks[start : start + 4] for start in range(0, len(blocks), 4)]
    assert len(turns) == 6 * 2
    for turn in turns:
        assert sorted(number for number, _ in turn) == [0, 1, 2, 3]
        assert len({request.workload for _, request in turn}) == 1
    assert len({tuple(number for number, _ in turn) for turn in turns}) > 3
    assert len({tuple(turn[0][1].workload for turn in turns[start : start + 2]) for start in range(0, 12, 2)}) == 2


def test_the_seed_decides_the_order(theatre: Theatre, setting: Setting) -> None:
    def order(seed: int) -> list[tuple[int, Any]]:
        theatre.log.clear()
        theatre.names.clear()
        run(replace(setting, random=np.random.default_rng(seed)))
        return theatre.asked(Block)

    assert order(5) == order(5)
    assert order(5) != order(6)


@pytest.mark.parametrize(("lean", "rounds"), [(None, 6), (1, 2), (2, 2), (4, 4), (6, 6)])
def test_rounds_beyond_those_of_a_lean_process_end_with_the_time(
    theatre: Theatre, setting: Setting, monkeypatch: pytest.MonkeyPatch, lean: int | None, rounds: int
) -> None:
    """A round of four processes and two workloads takes 8 pauses of 0.25 s; the time is over within the second round.
    None is left half done."""
    clock = FakeClock()
    monkeypatch.setattr(replicate, "perf_counter", clock)
    plan = msgspec.structs.replace(setting.plan, lean_rounds=lean)
    limit_at = clock() + 3.1
    outcomes = run(replace(setting, plan=plan, cores=Cores(clock=clock), limit_at=limit_at))
    assert len(outcomes) == len(ENTRANTS)
    for outcome in outcomes:
        told = Counter((block.workload, block.round) for block in outcome.blocks)
        assert told == {(name, number): 1 for name in ("2×4", "2×natural") for number in range(rounds)}


def test_there_is_a_pause_before_every_block(theatre: Theatre, setting: Setting) -> None:
    cores = Cores()
    run(replace(setting, cores=cores))
    assert cores.settled == [(0.25, PATIENCE_S)] * (6 * 2 * 4)


def test_a_block_after_which_cpus_lay_apart_is_timed_again(theatre: Theatre, setting: Setting) -> None:
    """The second of the first two blocks: together before and apart after it, then together."""
    together = [TOGETHER, TOGETHER]
    run(replace(setting, cores=Cores(*together, TOGETHER, APART, *together)))
    outcomes = run(replace(setting, cores=Cores(*together * 4, TOGETHER, APART, *together * 100)))
    assert len(theatre.asked(Block)) == 2 * (6 * 2 * 4 + 1)
    assert {block.core_latency_ns for item in outcomes for block in item.blocks} == {(TOGETHER, TOGETHER)}


def test_a_block_is_kept_as_it_is_when_cpus_stay_apart(theatre: Theatre, setting: Setting) -> None:
    """Who waited for them in vain does not wait once more."""
    outcomes = run(replace(setting, cores=Cores(*[TOGETHER] * 40, *[APART] * 40)))
    kept = [block.core_latency_ns for item in outcomes for block in item.blocks]
    assert Counter(kept) == {(TOGETHER, TOGETHER): 20, (APART, APART): 20, (): 8}
    assert len(theatre.asked(Block)) == 6 * 2 * 4


def test_a_block_is_kept_as_it_is_when_cpus_move_apart_every_time(theatre: Theatre, setting: Setting) -> None:
    outcomes = run(replace(setting, cores=Cores(*[TOGETHER] * 40, *[TOGETHER, APART] * 40)))
    kept = [block.core_latency_ns for item in outcomes for block in item.blocks]
    assert Counter(kept) == {(TOGETHER, TOGETHER): 20, (TOGETHER, APART): 20, (): 8}
    assert len(theatre.asked(Block)) == 20 + TRIES * 20 + 8


def test_what_went_by_before_a_block_is_kept(
    theatre: Theatre, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause of a quarter of a second, and once more before a block that is timed again, whose first calls are kept
    as what does not count."""
    clock = FakeClock()
    monkeypatch.setattr(replicate, "perf_counter", clock)
    together = [TOGETHER, TOGETHER]
    outcomes = run(replace(setting, cores=Cores(*together, TOGETHER, APART, *together, clock=clock)))
    blocks = [block for item in outcomes for block in item.blocks]
    assert Counter(block.wait_s for block in blocks) == {0.25: 47, 0.5: 1}
    assert [block.discarded_s == block.samples_s for block in blocks if block.wait_s == 0.5] == [True]
    assert {block.discarded_s for block in blocks if block.wait_s == 0.25} == {()}


@pytest.mark.parametrize(("least", "passes"), [(1, {(0, 1), (1, 1)}), (3, {(0, 3), (1, 1)}), (7, {(0, 7), (1, 2)})])
def test_a_block_has_as_many_calls_as_asked_at_least(
    theatre: Theatre, setting: Setting, least: int, passes: set[tuple[int, int]]
) -> None:
    """A pass at 2×4 is one call, and in the natural mix it is six."""
    plan = msgspec.structs.replace(setting.plan, block_s=0.001, least_passes=1, most_passes=100, least_calls=least)
    run(replace(setting, plan=plan))
    assert {(request.workload, request.passes) for _, request in theatre.asked(Block)} == passes


def test_blocks_are_as_long_as_the_warm_up_says(theatre: Theatre, setting: Setting) -> None:
    """A pass takes 1/128 s at 2×4 and six times as much in the natural mix of six batches; a block 0.05 s."""
    run(replace(setting, plan=msgspec.structs.replace(setting.plan, block_s=0.05, most_passes=100)))
    assert {(request.workload, request.passes) for _, request in theatre.asked(Block)} == {(0, 6), (1, 1)}


def test_from_text_a_pass_is_one_sample_of_the_warm_up(
    theatre: Theatre, setting: Setting, tiny_checkpoint: Path
) -> None:
    """A pass of six batches is one sample of 1/128 s."""
    encoder = text_encoder(tiny_checkpoint, LIMITS)
    inputs = build_inputs(TEXTS, encoder, LIMITS, (2,), (FromText.IN_TURN,), tiny_checkpoint)
    plan = msgspec.structs.replace(setting.plan, block_s=0.05, most_passes=100)
    run(replace(setting, inputs=inputs, plan=plan))
    assert {(request.workload, request.passes) for _, request in theatre.asked(Block)} == {(0, 6)}


def test_one_that_cannot_start_does_not_stop_the_others(theatre: Theatre, setting: Setting) -> None:
    theatre.fails = lambda precision, request: precision is Precision.BF16 and isinstance(request, WarmUp)
    outcomes = run(setting)
    (gave_up,) = (outcome for outcome in outcomes if isinstance(outcome, GaveUp))
    assert (gave_up.entrant, gave_up.stage, gave_up.failed.hint) == (OTHERS[0], "start", "hint")
    assert {outcome.entrant for outcome in outcomes if isinstance(outcome, Finished)} == {ANCHOR, CONTROL, OTHERS[1]}


def test_one_that_dies_in_a_round_is_not_asked_again(theatre: Theatre, setting: Setting) -> None:
    theatre.fails = lambda precision, request: (
        precision is Precision.INT8_DYNAMIC and isinstance(request, Block) and len(theatre.asked(Block)) > 20
    )
    outcomes = run(setting)
    (gave_up,) = (outcome for outcome in outcomes if isinstance(outcome, GaveUp))
    assert (gave_up.entrant, gave_up.stage) == (OTHERS[1], "timing")
    (number,) = (number for number, name in theatre.names.items() if name is Precision.INT8_DYNAMIC)
    *_, last, end = (what for who, what in theatre.log if who == number)
    assert (type(last), end) == (Block, "closed")
    others = [outcome for outcome in outcomes if isinstance(outcome, Finished)]
    assert [len(outcome.blocks) for outcome in others] == [12, 12, 12]


def test_one_that_cannot_answer_gives_up_at_scoring(theatre: Theatre, setting: Setting, scorer: Scorer) -> None:
    theatre.fails = lambda precision, request: precision is Precision.BF16 and isinstance(request, Score)
    assert [(outcome.entrant, outcome.stage) for outcome in run(setting, scorer) if isinstance(outcome, GaveUp)] == [
        (OTHERS[0], "scoring")
    ]


def test_what_was_scored_is_explained_and_a_failure_to_explain_loses_nothing(
    theatre: Theatre, setting: Setting, scorer: Scorer
) -> None:
    theatre.fails = lambda precision, request: precision is Precision.BF16 and isinstance(request, Explain)
    outcomes = run(setting, scorer)
    assert all(isinstance(outcome, Finished) and outcome.weighed for outcome in outcomes)
    told = {outcome.entrant: outcome.executed for outcome in outcomes if isinstance(outcome, Finished)}
    assert told == {ANCHOR: EXECUTED, CONTROL: EXECUTED, OTHERS[0]: None, OTHERS[1]: EXECUTED}


def test_every_process_is_closed_even_if_the_caller_stops_early(theatre: Theatre, setting: Setting) -> None:
    outcomes = run_replicate(setting, ENTRANTS, "process 1", None)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]  # it is a generator
    assert {number for number, what in theatre.log if what == "closed"} == {0, 1, 2, 3}


def test_every_process_is_asked_for_the_same_threads_and_inputs(theatre: Theatre, setting: Setting) -> None:
    outcomes = run(setting)
    assert {(request.threads, request.inputs) for _, request in theatre.asked(Open)} == {(2, str(setting.inputs_file))}
    assert {outcome.opened.info.threads for outcome in outcomes} == {2}


def test_answers_are_scored_as_served_and_int8_at_each_batch_size_too(
    theatre: Theatre, setting: Setting, scorer: Scorer, tmp_path: Path
) -> None:
    found = {outcome.entrant: outcome.quality for outcome in run(setting, scorer)}
    assert [quality.batch_size for quality in found[ANCHOR]] == [None]
    assert found[CONTROL] == ()
    assert [quality.batch_size for quality in found[OTHERS[0]]] == [None]
    assert [quality.batch_size for quality in found[OTHERS[1]]] == [None, 1, 8]
    assert {quality.reference for qualities in found.values() for quality in qualities} == {"fake/fp32"}
    kept = load_reference(tmp_path / "reference.npz", "mark")
    assert kept
    np.testing.assert_array_equal(kept.answers, LOGITS)


def test_without_a_reference_nothing_can_be_scored(
    theatre: Theatre, setting: Setting, scorer: Scorer, tmp_path: Path
) -> None:
    assert [outcome.quality for outcome in run(setting, scorer, OTHERS)] == [(), ()]
    assert not (tmp_path / "reference.npz").exists()


def test_the_answers_of_another_anchor_stand_in_and_are_not_kept(
    theatre: Theatre, setting: Setting, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "REFERENCE", Candidate("torch-cpu", Precision.FP32))
    assert all(outcome.quality for outcome in run(setting, scorer) if outcome.entrant.role is not Role.CONTROL)
    assert not (tmp_path / "reference.npz").exists()


def test_a_kept_reference_is_used_and_left_as_it_is(
    theatre: Theatre, setting: Setting, scorer: Scorer, tmp_path: Path
) -> None:
    run(setting, scorer)
    before = (tmp_path / "reference.npz").stat().st_mtime_ns
    again = Scorer(tmp_path / "reference.npz", "mark", [1] * 6, (1,), tmp_path)
    assert all(outcome.quality for outcome in run(setting, again, OTHERS))
    assert (tmp_path / "reference.npz").stat().st_mtime_ns == before
