from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import exp, isfinite, log

import msgspec
import numpy as np
import pytest
from scipy import stats

from artifact.precision import Precision
from measure.records import Measurement, Quality, Record, Role, Session
from measure.statistics import Decision
from report.compare_runs import compare_runs
from report.difference import AccuracyChange, Basis, Bounds, CandidateChange, Difference, Differences, Outcome, Pairing
from report.measured_run import Run
from tests.report.records import ASKED, SLOW, TWICE, failure, measurements, quality, session

ANCHOR, BF16, FP32, INT8 = ASKED
STEADY = (1.0, 1.0, 1.0, 1.0)
NOISE = (0.99, 1.01, 0.99, 1.01)
OTHER_CPU = {"cpu_model": "Other CPU"}


def scaled(seconds: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: factor * value for name, value in seconds.items()}


def records(
    name: str,
    *,
    slower: float = 1.0,
    machine: float = 1.0,
    noise: Sequence[float] = NOISE,
    anchor_noise: Sequence[float] = STEADY,
    scores: Sequence[Quality] = (quality(0.828, wins=9, losses=11),),
    replicates: Sequence[int] = range(4),
    control: bool = True,
) -> list[Record]:
    """A run of the anchor, its control and int8 at half its time; `slower` is int8's factor, `machine` everyone's."""
    anchor, int8 = scaled(SLOW, machine), scaled(TWICE, slower * machine)
    measured = partial(measurements, session_name=name, replicates=replicates)
    return [
        session(name),
        *measured(ANCHOR, anchor, role=Role.ANCHOR, scores=(quality(0.83),), noise=anchor_noise),
        *(measured(ANCHOR, anchor, role=Role.CONTROL, noise=anchor_noise) if control else ()),
        *measured(INT8, int8, scores=scores, noise=noise),
    ]


def with_session(made: Sequence[Record], **changed: object) -> list[Record]:
    return [msgspec.structs.replace(item, **changed) if isinstance(item, Session) else item for item in made]


def on_machine(made: Sequence[Record], **changed: object) -> list[Record]:
    head = next(item for item in made if isinstance(item, Session))
    return with_session(made, machine=msgspec.structs.replace(head.machine, **changed))


def with_anchor(made: Sequence[Record], **changed: object) -> list[Record]:
    """Other facts of the anchor, such as its weights; `engine_version` and the like go to what its engine told."""
    found: list[Record] = []
    for item in made:
        if isinstance(item, Measurement) and item.role is Role.ANCHOR:
            told = {key: value for key, value in changed.items() if hasattr(item.info, key)}
            facts = {key: value for key, value in changed.items() if key not in told}
            item = msgspec.structs.replace(item, info=msgspec.structs.replace(item.info, **told), **facts)
        found.append(item)
    return found


def compare(base: Sequence[Record], *later: Sequence[Record], **bounds: float) -> Differences:
    runs = [Run(f"later {number}" if number else "later", made) for number, made in enumerate(later)]
    return compare_runs(Run("base", base), runs, Bounds(**bounds))


def difference(base: Sequence[Record], later: Sequence[Record], **bounds: float) -> Difference:
    return compare(base, later, **bounds).differences[0]


def candidate(found: Difference, name: str = INT8) -> CandidateChange:
    return next(item for item in found.candidates if item.name == name)


def outcomes(found: Difference, name: str = INT8) -> set[Outcome]:
    return {speed.outcome for speed in candidate(found, name).speeds}


def accuracy(found: Difference, name: str = INT8) -> AccuracyChange:
    change = candidate(found, name).accuracy
    assert change is not None
    return change


# --- speed ---


def test_a_run_beside_its_like_is_within() -> None:
    found = compare(records("s1"), records("s2"))
    assert outcomes(found.differences[0]) == {Outcome.WITHIN}
    assert (found.regressions, found.not_shown) == ((), ())
    assert found.tests == 2


def test_a_slower_candidate_regresses_and_its_factors_are_the_scripted_ones() -> None:
    found = compare(records("s1"), records("s2", slower=1.25))
    speeds = candidate(found.differences[0]).speeds
    assert [speed.workload for speed in speeds] == ["1×16", "8×natural"]
    for speed in speeds:
        assert speed.relative is not None
        assert speed.seconds is not None
        assert speed.relative.factor == pytest.approx(1.25)
        assert speed.seconds.factor == pytest.approx(1.25)
        assert speed.later_batch_s / speed.base_batch_s == pytest.approx(1.25)
        assert speed.base_speed is not None
        assert speed.later_speed is not None
        assert speed.base_speed.ratio / speed.later_speed.ratio == pytest.approx(1.25)
    assert found.regressions == (f"{INT8} (1×16, 8×natural)",)


def test_seconds_are_those_of_one_batch() -> None:
    speeds = {
        speed.workload: speed for speed in candidate(difference(records("s1", noise=STEADY), records("s2"))).speeds
    }
    assert speeds["8×natural"].base_batch_s == pytest.approx(0.040)
    assert speeds["1×16"].base_batch_s == pytest.approx(0.005)


def test_a_faster_candidate_is_said_to_be() -> None:
    assert outcomes(difference(records("s1"), records("s2", slower=0.8))) == {Outcome.IMPROVED}


def test_the_interval_is_welchs_over_processes() -> None:
    """Four processes each, their logarithms about 0 and 0.1, of unlike scatter: scipy's interval."""
    base, later = (-0.01, 0.01, -0.01, 0.01), (0.07, 0.13, 0.07, 0.13)
    noises = [[exp(value) for value in values] for values in (base, later)]
    found = difference(records("s1", noise=noises[0]), records("s2", noise=noises[1]))
    expected = stats.ttest_ind(later, base, equal_var=False).confidence_interval(0.95)
    for speed in candidate(found).speeds:
        for factor in (speed.relative, speed.seconds):
            assert factor is not None
            assert factor.low is not None
            assert factor.high is not None
            assert [log(factor.low), log(factor.high)] == pytest.approx([expected.low, expected.high])


def test_relative_time_pairs_each_process_with_its_anchors() -> None:
    """Processes scatter by a tenth, but candidate and anchor alike: relative to one another nothing scatters."""
    wild = (0.9, 1.1, 1.0, 0.95)
    found = difference(
        records("s1", noise=wild, anchor_noise=wild), records("s2", noise=wild, anchor_noise=wild, slower=1.1)
    )
    speed = candidate(found).speeds[0]
    assert speed.relative is not None
    assert [speed.relative.low, speed.relative.high] == pytest.approx([1.1, 1.1])
    assert speed.seconds is not None
    assert speed.seconds.low is not None
    assert speed.seconds.low < 1
    assert outcomes(found) == {Outcome.REGRESSED}


def test_the_bound_is_what_was_asked_for() -> None:
    base, later = records("s1"), records("s2", slower=1.25)
    assert outcomes(difference(base, later, slowdown_fraction=0.1)) == {Outcome.REGRESSED}
    assert outcomes(difference(base, later, slowdown_fraction=0.25)) == {Outcome.INCONCLUSIVE}
    assert outcomes(difference(base, later, slowdown_fraction=0.4)) == {Outcome.WITHIN}


def test_one_process_is_inconclusive_and_has_no_interval() -> None:
    found = compare(records("s1"), records("s2", replicates=(0,), slower=2.0))
    for speed in candidate(found.differences[0]).speeds:
        assert speed.relative is not None
        assert (speed.relative.low, speed.relative.high, speed.p_value) == (None, None, None)
    assert found.regressions == ()
    assert found.not_shown == (f"{INT8} (1×16, 8×natural)",)


# --- what is a yardstick, and where there is none ---


def test_a_machine_that_slowed_down_is_no_regression_and_is_warned_of() -> None:
    found = difference(records("s1"), records("s2", machine=1.5))
    assert found.basis is Basis.RELATIVE
    assert outcomes(found) == {Outcome.WITHIN}
    assert outcomes(found, ANCHOR) == {Outcome.YARDSTICK}
    assert any(
        "the machine changed between the runs" in warning and "1.50× at 1×16" in warning for warning in found.warnings
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_sha256": "other"}, "other weights"),
        ({"engine_version": "2"}, "engine 1 and engine 2"),
        ({"options": {"compile": "true"}}, "other settings"),
    ],
)
def test_an_anchor_that_changed_is_no_yardstick_and_seconds_are_judged(
    changed: Mapping[str, object], said: str
) -> None:
    """The new anchor is twice as fast; nobody else became slower for that."""
    later = with_anchor(records("s2"), **changed)
    quick = [
        msgspec.structs.replace(
            item,
            blocks=tuple(
                msgspec.structs.replace(block, samples_s=tuple(sample / 2 for sample in block.samples_s))
                for block in item.blocks
            ),
        )
        if isinstance(item, Measurement) and item.role in (Role.ANCHOR, Role.CONTROL)
        else item
        for item in later
    ]
    found = difference(records("s1"), quick)
    assert found.basis is Basis.SECONDS
    assert said in found.reason
    assert outcomes(found) == {Outcome.WITHIN}
    assert outcomes(found, ANCHOR) == {Outcome.IMPROVED}
    speed = candidate(found).speeds[0]
    assert speed.relative is not None
    assert speed.relative.factor == pytest.approx(2.0, rel=0.01)


def test_other_environment_variables_make_seconds_the_basis() -> None:
    found = difference(
        records("s1"), with_session(records("s2", machine=1.3), environment={"OMP_WAIT_POLICY": "PASSIVE"})
    )
    assert found.basis is Basis.SECONDS
    assert outcomes(found) == outcomes(found, ANCHOR) == {Outcome.REGRESSED}


def test_where_compiled_code_is_kept_changes_no_yardstick() -> None:
    found = difference(records("s1"), with_session(records("s2"), environment={"TORCHINDUCTOR_CACHE_DIR": "elsewhere"}))
    assert found.basis is Basis.RELATIVE
    assert [change.what for change in found.changes] == ["environment TORCHINDUCTOR_CACHE_DIR"]


@pytest.mark.parametrize(
    "changed", [OTHER_CPU, {"cpu_features": ("avx2", "amx_int8")}, {"usable_cores": 4}, {"system": "Darwin 25 arm64"}]
)
def test_seconds_of_unlike_machines_are_never_judged(changed: Mapping[str, object]) -> None:
    """Ten times as slow a machine; the candidate keeps its speed-up."""
    found = difference(records("s1"), on_machine(records("s2", machine=10.0), **changed))
    assert found.basis is Basis.RELATIVE
    assert "the machines differ" in found.reason
    assert {speed.seconds for item in found.candidates for speed in item.speeds} == {None}
    assert outcomes(found) == {Outcome.WITHIN}
    assert candidate(found).speeds[0].later_batch_s == pytest.approx(0.05, rel=0.01)


def test_other_threads_are_as_another_machine() -> None:
    found = difference(records("s1"), with_session(records("s2", machine=2.0), threads=1))
    assert (found.basis, candidate(found).speeds[0].seconds) == (Basis.RELATIVE, None)
    assert "2 and 1 threads" in found.reason


def test_another_device_is_as_another_machine() -> None:
    later = [
        msgspec.structs.replace(item, info=msgspec.structs.replace(item.info, device="GPU B"))
        if isinstance(item, Measurement) and item.precision is Precision.INT8_DYNAMIC
        else item
        for item in records("s2")
    ]
    found = difference(records("s1"), later)
    assert "cpu and GPU B" in found.reason
    assert candidate(found).speeds[0].seconds is None


def test_a_speed_up_that_is_lost_on_another_machine_is_a_regression_of_the_speed_up() -> None:
    assert outcomes(difference(records("s1"), on_machine(records("s2", slower=1.4), **OTHER_CPU))) == {
        Outcome.REGRESSED
    }


def test_another_anchors_engine_on_another_machine_leaves_nothing_to_judge_speed_by() -> None:
    later = on_machine(with_anchor(records("s2", slower=3.0), engine_version="2"), **OTHER_CPU)
    found = difference(records("s1"), later)
    assert found.basis is Basis.NONE
    assert outcomes(found) == outcomes(found, ANCHOR) == {Outcome.NOT_JUDGED}
    assert found.is_judged  # its accuracy is


def other_anchor(name: str) -> list[Record]:
    return [
        session(name, anchor=FP32),
        *measurements(FP32, SLOW, role=Role.ANCHOR, session_name=name),
        *measurements(INT8, scaled(TWICE, 1.3), session_name=name, noise=NOISE),
    ]


def test_another_anchor_leaves_seconds_on_one_machine_and_nothing_on_two() -> None:
    here, there = difference(records("s1"), other_anchor("s2")), on_machine(other_anchor("s2"), **OTHER_CPU)
    assert (here.basis, here.anchor) == (Basis.SECONDS, None)
    assert f"{ANCHOR} and {FP32}" in here.reason
    assert outcomes(here) == {Outcome.REGRESSED}
    assert {speed.relative for item in here.candidates for speed in item.speeds} == {None}
    found = difference(records("s1"), there)
    assert found.basis is Basis.NONE
    assert outcomes(found) == {Outcome.NOT_JUDGED}
    assert not found.is_judged


def test_only_workloads_of_the_same_shapes_are_compared() -> None:
    later = records("s2", slower=2.0)
    head = later[0]
    assert isinstance(head, Session)
    first, second = head.workloads
    other = msgspec.structs.replace(second, shapes=((8, 20), (8, 31)))
    found = difference(records("s1"), with_session(later, workloads=(first, other)))
    assert [speed.workload for speed in candidate(found).speeds] == ["1×16"]
    assert found.workloads_lost == ("8×natural",)
    assert "everything at 8×natural (not measured)" in found.not_shown


def test_a_copy_of_the_same_measurements_is_not_judged() -> None:
    found = difference(records("s1"), [*records("s1"), session("s2", load=None)])
    assert not found.is_judged
    assert any("the very same measurements" in warning for warning in found.warnings)


# --- accuracy ---


def test_accuracy_is_paired_by_a_reference_that_is_the_same() -> None:
    later = records("s2", scores=(quality(0.829, wins=10, losses=11),))
    change = accuracy(difference(records("s1"), later))
    assert change.pairing is Pairing.REFERENCE
    assert change.difference == pytest.approx(0.001)
    half = 1.96 * (9 + 11 + 10 + 11 + 1 - 1 / 1002) ** 0.5 / 1002
    assert (change.low, change.high) == pytest.approx((1 / 1002 - half, 1 / 1002 + half))
    assert change.outcome is Outcome.INCONCLUSIVE  # it reaches below a loss of 1 %
    assert accuracy(difference(records("s1"), later, accuracy_drop_fraction=0.02)).outcome is Outcome.WITHIN
    assert accuracy(difference(records("s1"), later), ANCHOR).outcome is Outcome.WITHIN


@pytest.mark.parametrize("changed", ["weights", "engine", "machine", "inputs", "reference", "not measured"])
def test_without_the_same_reference_accuracy_is_unpaired(changed: str) -> None:
    score = quality(0.829, wins=10, losses=11)
    same = records("s2", scores=(score,))
    later = {
        "weights": with_anchor(same, model_sha256="other"),
        "engine": with_anchor(same, engine_version="2"),
        "machine": on_machine(same, **OTHER_CPU),
        "inputs": with_session(same, inputs_sha256="other"),
        "reference": records("s2", scores=(msgspec.structs.replace(score, reference_accuracy_fraction=0.831),)),
        "not measured": [item for item in same if getattr(item, "role", None) is not Role.ANCHOR],
    }
    change = accuracy(difference(records("s1"), later[changed]))
    assert change.pairing is Pairing.NONE
    assert change.low is not None
    assert change.high is not None
    assert change.high - change.low == pytest.approx(4 * 0.0165, rel=0.05)


def test_answers_that_are_the_same_to_the_last_digit_cannot_have_changed() -> None:
    change = accuracy(difference(records("s1"), records("s2")))
    assert change.pairing is Pairing.SAME
    assert (change.low, change.high) == pytest.approx((-1.96 / 1002, 1.96 / 1002))
    other = msgspec.structs.replace(quality(0.828, wins=9, losses=11), max_error=0.1000001)
    assert accuracy(difference(records("s1"), records("s2", scores=(other,)))).pairing is Pairing.REFERENCE


def test_a_drop_is_counted_in_whole_examples() -> None:
    """1 % of 800 right answers are eight: eight fewer right is the bound itself, nine are beyond."""
    base = records("s1", scores=(quality(0.80, losses=30),))
    eight = records("s2", scores=(quality(0.792, losses=38),))
    nine = records("s2", scores=(quality(0.791, losses=39),))
    assert accuracy(difference(base, eight)).outcome is Outcome.INCONCLUSIVE
    assert accuracy(difference(base, nine)).outcome is Outcome.REGRESSED
    assert compare(base, nine).regressions == (f"{INT8} (accuracy)",)
    assert compare(base, nine, accuracy_drop_fraction=0.012).regressions == ()


def test_answers_that_are_no_numbers_any_more_are_a_regression_however_few() -> None:
    broken = msgspec.structs.replace(quality(0.828, wins=9, losses=11), not_finite=1)
    assert accuracy(difference(records("s1"), records("s2", scores=(broken,)))).outcome is Outcome.REGRESSED
    assert accuracy(difference(records("s1", scores=(broken,)), records("s2"))).outcome is not Outcome.REGRESSED


def test_a_gain_beyond_the_bound_is_said() -> None:
    later = records("s2", scores=(quality(0.88, wins=50),))
    assert accuracy(difference(records("s1", scores=(quality(0.83),)), later)).outcome is Outcome.IMPROVED


def test_accuracy_of_other_data_is_shown_and_not_judged() -> None:
    later = with_session(records("s2", scores=(quality(0.5, losses=330),)), data_sha256="other")
    found = difference(records("s1"), later)
    change = accuracy(found)
    assert (change.outcome, change.low, change.high) == (Outcome.NOT_JUDGED, None, None)
    assert change.difference == pytest.approx(-0.328)
    assert any("the data differ" in warning for warning in found.warnings)
    assert outcomes(found) == {Outcome.WITHIN}  # time knows nothing of labels


def test_ways_of_batching_are_compared_like_with_like_and_the_worst_is_told() -> None:
    base = records("s1", scores=(quality(0.83), quality(0.80, losses=30, batch_size=8)))
    later = records("s2", scores=(quality(0.81, losses=20), quality(0.80, losses=30, batch_size=8)))
    change = accuracy(difference(base, later))
    assert (change.batching, change.outcome) == ("served", Outcome.REGRESSED)


def test_what_was_not_scored_has_no_accuracy() -> None:
    assert candidate(difference(records("s1"), records("s2", scores=()))).accuracy is None


# --- what is missing ---


def test_a_candidate_that_fails_later_is_a_regression_with_its_reason() -> None:
    later: list[Record] = [item for item in records("s2") if getattr(item, "precision", None) != Precision.INT8_DYNAMIC]
    broken = failure("ort-cpu", Precision.INT8_DYNAMIC, stage="open", reason="no kernel")
    later.append(msgspec.structs.replace(broken, session="s2"))
    found = difference(records("s1"), later)
    assert [(item.name, item.reason, item.failed) for item in found.lost] == [(INT8, "open: no kernel", True)]
    assert found.regressions == (f"{INT8} (failed)",)


def test_a_runtime_that_cannot_work_any_more_takes_its_candidates_along() -> None:
    later: list[Record] = [item for item in records("s2") if getattr(item, "precision", None) != Precision.INT8_DYNAMIC]
    gone = failure("ort-cpu", None, stage="probe", reason="it is not installed")
    later.append(msgspec.structs.replace(gone, session="s2"))
    assert difference(records("s1"), later).regressions == (f"{INT8} (failed)",)


def test_a_candidate_that_failed_half_way_is_a_regression_too() -> None:
    later = records("s2")
    broken = failure("ort-cpu", Precision.INT8_DYNAMIC, stage="time", reason="it was killed")
    found = difference(records("s1"), [*later, msgspec.structs.replace(broken, session="s2")])
    assert found.regressions == (f"{INT8} (failed)",)
    assert candidate(found)


def test_what_failed_before_is_no_news() -> None:
    broken = failure("ort-cpu", Precision.INT8_DYNAMIC, stage="time", reason="it was killed")
    base = [*records("s1"), broken]
    later = [*records("s2"), msgspec.structs.replace(broken, session="s2")]
    assert difference(base, later).regressions == ()


def test_a_failure_of_an_earlier_question_is_forgotten() -> None:
    broken = failure("ort-cpu", Precision.INT8_DYNAMIC, stage="time", reason="it was killed")
    later = [*records("s2"), msgspec.structs.replace(broken, session="s2"), session("s3", load=None)]
    assert difference(records("s1"), later).regressions == ()


@pytest.mark.parametrize(("asked", "reason"), [(ASKED[:1], "not asked for"), (ASKED, "asked for, and not finished")])
def test_a_candidate_that_was_not_measured_is_said_and_does_not_regress(asked: Sequence[str], reason: str) -> None:
    later: list[Record] = [
        session("s2", asked=asked),
        *measurements(ANCHOR, SLOW, role=Role.ANCHOR, scores=(quality(0.83),), session_name="s2"),
    ]
    found = difference(records("s1"), later)
    assert [(item.name, item.reason, item.failed) for item in found.lost] == [(INT8, reason, False)]
    assert found.regressions == ()
    assert found.not_shown == (f"{INT8} ({reason})",)


def test_what_only_the_later_run_has_is_named() -> None:
    assert difference(records("s1"), [*records("s2"), *measurements(BF16, TWICE, session_name="s2")]).added == (BF16,)


def test_controls_that_are_not_clean_are_told() -> None:
    restless = [
        *records("s2", control=False),
        *measurements(ANCHOR, TWICE, role=Role.CONTROL, session_name="s2", noise=NOISE),
    ]
    found = difference(records("s1"), restless)
    assert (found.base_control, found.later_control) == (Decision.EQUIVALENT, Decision.FASTER)
    assert any(warning.startswith("later: the A/A control shows a difference") for warning in found.warnings)


# --- what differs ---


def test_everything_that_differs_is_listed_and_nothing_else() -> None:
    later = with_session(
        on_machine(records("s2"), python="3.12.1"),
        started_utc="2026-02-02T00:00:00+00:00",
        versions={"torch": "2.14.0", "onnxruntime": "1.33.0"},
        environment={"OMP_WAIT_POLICY": "PASSIVE"},
        plan=msgspec.structs.replace(session().plan, rounds=5),
        data_sha256="0123456789abcdef",
    )
    later = with_anchor(later, model_sha256="fedcba9876543210")
    told = {change.what: (change.base, change.later) for change in difference(records("s1"), later).changes}
    assert told == {
        "measured": ("2026-01-01T00:00:00+00:00", "2026-02-02T00:00:00+00:00"),
        "Python": ("3.11.7", "3.12.1"),
        "plan": ("rounds 2", "rounds 5"),
        "data": (
            "reviews.csv, 1000 examples, sha256 d",
            "reviews.csv, 1000 examples, sha256 0123456789ab",
        ),
        "torch": ("2.13.0", "2.14.0"),
        "onnxruntime": ("–", "1.33.0"),
        "environment OMP_WAIT_POLICY": ("–", "PASSIVE"),
        f"weights of {ANCHOR}": ("sha256 sha of torch", "sha256 fedcba987654"),
    }
    assert difference(records("s1"), records("s2")).changes == ()


def test_what_changed_alike_for_several_candidates_is_one_line() -> None:
    later = [
        msgspec.structs.replace(item, info=msgspec.structs.replace(item.info, engine_version="2"))
        if isinstance(item, Measurement)
        else item
        for item in records("s2")
    ]
    told = [change.what for change in difference(records("s1"), later).changes]
    assert told == [f"engine of {ANCHOR}, {INT8}"]


# --- several runs, chance, and numbers ---


def test_every_later_run_is_compared_with_the_first() -> None:
    found = compare(records("s1"), records("s2", slower=1.25), records("s3"))
    assert [item.later for item in found.differences] == ["later", "later 1"]
    assert found.tests == 4
    assert found.regressions == (f"later: {INT8} (1×16, 8×natural)",)


def test_with_more_tests_the_same_slow_down_takes_more_to_be_called_one() -> None:
    """Alone its p-value passes; beside many others Holm's adjustment does not let it."""
    later = records("s2", slower=1.08)
    alone = compare(records("s1"), later)
    beside = compare(records("s1"), later, *(records(f"s{number}") for number in range(3, 12)))
    assert outcomes(alone.differences[0]) == {Outcome.REGRESSED}
    assert outcomes(beside.differences[0]) == {Outcome.INCONCLUSIVE}
    pair = [candidate(found.differences[0]).speeds[0] for found in (alone, beside)]
    assert pair[0].relative == pair[1].relative
    assert pair[0].p_value is not None
    assert pair[1].p_value == pytest.approx(10 * pair[0].p_value)


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from numbers(item)


@pytest.mark.parametrize(
    "later",
    [
        records("s2"),
        records("s2", noise=STEADY),
        records("s2", noise=STEADY, slower=1.5),
        records("s2", replicates=(0,)),
        records("s2", replicates=(0, 1)),
        other_anchor("s2"),
        with_session(records("s2"), data_sha256="other"),
    ],
)
def test_every_number_is_one(later: list[Record]) -> None:
    every = list(numbers(msgspec.to_builtins(compare(records("s1", noise=STEADY), later))))
    assert len(every) > 20
    assert all(isfinite(number) for number in every)


def simulated(pairs: int, slower: float, scatter: float) -> list[Differences]:
    """Runs of four candidates beside the anchor, whose processes scatter; one of them is `slower` in the second run."""
    random = np.random.default_rng(1979)
    others = (BF16, FP32, INT8, "openvino-cpu/fp32")

    def made(name: str, factor: float) -> list[Record]:
        def noise() -> list[float]:
            return [exp(value) for value in random.normal(0, scatter, 4)]

        found: list[Record] = [
            session(name, asked=(ANCHOR, *others)),
            *measurements(ANCHOR, SLOW, role=Role.ANCHOR, session_name=name, noise=noise()),
        ]
        for other in others:
            seconds = scaled(TWICE, factor if other == INT8 else 1.0)
            found += measurements(other, seconds, session_name=name, noise=noise())
        return found

    return [compare(made("s1", 1.0), made("s2", slower)) for _ in range(pairs)]


def test_where_nothing_changed_hardly_a_run_fails_by_chance() -> None:
    found = simulated(200, slower=1.0, scatter=0.04)
    assert sum(bool(item.regressions) for item in found) <= 0.05 * 200


def test_a_slow_down_of_just_the_bound_is_called_one_in_a_fortieth_of_cases_at_most() -> None:
    found = simulated(200, slower=1.05, scatter=0.02)
    assert sum(bool(item.regressions) for item in found) <= 0.05 * 200


def test_a_real_tenth_is_found_nearly_always() -> None:
    found = simulated(100, slower=1.10, scatter=0.004)
    caught = [item for item in found if item.regressions]
    assert len(caught) >= 95
    assert {text.split(" ")[0] for item in caught for text in item.regressions} == {INT8}


def test_a_run_without_a_session_is_an_error() -> None:
    with pytest.raises(ValueError, match="no session"):
        compare([], records("s2"))
