from math import exp, log

import numpy as np
import pytest
from scipy import stats

from artifact.intervals import Interval
from measure.statistics import (
    Decision,
    LogRatio,
    accuracy_difference,
    decide,
    is_clear,
    is_settled,
    pass_seconds,
)


@pytest.mark.parametrize(
    ("samples", "shapes", "expected"),
    [
        ([3.0, 1.0, 2.0], [(1, 8)], 2.0),
        ([1.0, 2.0, 3.0, 4.0], [(1, 8)], 2.5),
        ([1.0, 10.0, 3.0, 30.0, 2.0, 90.0], [(1, 8), (1, 16)], 2.0 + 30.0),
        # (8, 20) occurs twice in each pass: its median is over 1, 5, 2, 3 and counts twice
        ([1.0, 7.0, 5.0, 2.0, 9.0, 3.0], [(8, 20), (8, 30), (8, 20)], 2 * 2.5 + 8.0),
        # one slow call among many of its shape does not show
        ([1.0, 1.0, 1.0, 100.0], [(8, 20), (8, 20)], 2.0),
    ],
)
def test_a_pass_is_the_sum_of_the_medians_of_its_shapes(
    samples: list[float], shapes: list[tuple[int, int]], expected: float
) -> None:
    assert pass_seconds(samples, shapes) == expected


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, 2.0, 3.0]])
def test_a_broken_pass_is_an_error(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="whole passes"):
        pass_seconds(samples, [(1, 8), (1, 16)])


def test_the_estimate_is_the_mean_on_the_scale_of_logarithms() -> None:
    assert LogRatio.of([log(2), log(8)]).interval().estimate == pytest.approx(4.0)


def test_one_replicate_decides_nothing() -> None:
    found = LogRatio.of([log(3)])
    assert found.interval() == Interval(exp(found.centre), None, None)
    assert found.interval().estimate == pytest.approx(3.0)
    assert decide([found]) == (Decision.INCONCLUSIVE,)
    assert found.more_replicates() is None
    assert not is_clear([log(3)])
    assert not is_settled([log(3)])


def test_equal_replicates_have_no_width() -> None:
    found = LogRatio.of([log(1.5)] * 4)
    interval = found.interval()
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((1.5, 1.5, 1.5))
    assert decide([found]) == (Decision.FASTER,)
    assert is_clear([log(1.5)] * 4)
    assert found.more_replicates() == 0


def test_inverted_ratios_have_the_inverted_interval() -> None:
    logs = np.random.default_rng(5).normal(0.3, 0.1, 6)
    there, back = LogRatio.of(logs.tolist()).interval(), LogRatio.of((-logs).tolist()).interval()
    assert back.low
    assert back.high
    assert (there.estimate, there.low, there.high) == pytest.approx((1 / back.estimate, 1 / back.high, 1 / back.low))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_the_interval_is_students_on_the_processes(level: float) -> None:
    centres = np.array([0.1, 0.2, 0.4, 0.35, 0.15])
    found = LogRatio.of(centres.tolist()).interval(level)
    expected = stats.t.interval(level, df=4, loc=centres.mean(), scale=stats.sem(centres))
    assert found.low
    assert found.high
    assert [log(found.low), log(found.high)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("centre", "error", "decision"),
    [
        # 3.1824 is Student's 97.5 % quantile for four processes; ln 1.02 = 0.019803
        (0.0198 + 0.0319, 0.01, Decision.FASTER),
        (0.0198 + 0.0317, 0.01, Decision.INCONCLUSIVE),
        (-0.0198 - 0.0319, 0.01, Decision.SLOWER),
        (-0.0198 - 0.0317, 0.01, Decision.INCONCLUSIVE),
        (0.0, 0.0062, Decision.EQUIVALENT),
        (0.0, 0.0063, Decision.INCONCLUSIVE),
        (0.0100, 0.0030, Decision.EQUIVALENT),
        (0.0100, 0.0031, Decision.INCONCLUSIVE),
        (0.5, 0.2, Decision.INCONCLUSIVE),
        (0.0199, 0.0, Decision.FASTER),
        (0.0197, 0.0, Decision.EQUIVALENT),
        (3.0, None, Decision.INCONCLUSIVE),
    ],
)
def test_every_interval_has_its_decision(centre: float, error: float | None, decision: Decision) -> None:
    assert decide([LogRatio(centre, error, 4)]) == (decision,)


def test_among_many_a_difference_must_be_clearer() -> None:
    """Two-sided p-values 0.0125 and 0.04: by Holm the first survives among four comparisons (0.05), not among five."""
    error = 0.01
    clear, faint = (LogRatio(log(1.02) + error * stats.t.ppf(1 - p / 2, 9), error, 10) for p in (0.0124, 0.04))
    nothing = LogRatio(0.0, 0.1, 10)
    assert decide([clear, faint]) == (Decision.FASTER, Decision.FASTER)
    assert decide([clear, nothing, nothing, nothing])[0] is Decision.FASTER
    assert decide([clear, nothing, nothing, nothing, nothing])[0] is Decision.INCONCLUSIVE
    assert decide([faint, nothing])[0] is Decision.INCONCLUSIVE


def test_the_chance_of_a_difference_is_students_tail_beyond_two_per_cent() -> None:
    found = LogRatio(0.06, 0.01, 6)
    assert found.p_beyond == pytest.approx(2 * stats.t.sf((0.06 - log(1.02)) / 0.01, 5))
    assert LogRatio(0.01, 0.001, 6).p_beyond == 1.0


def test_it_is_clear_when_one_in_a_thousand_would_be_wrong() -> None:
    half = stats.t.ppf(0.9995, 3) * stats.tstd([-1, 0, 0, 1]) / 2

    def about(centre: float, error: float) -> list[float]:
        return [centre + error / half * place for place in (-1, 0, 0, 1)]

    assert is_clear(about(log(1.02) + 0.05, 0.0499))
    assert not is_clear(about(log(1.02) + 0.05, 0.0501))
    assert is_clear(about(0.0, 0.999 * log(1.02)))
    assert not is_clear(about(0.0, 1.001 * log(1.02)))


def test_the_last_replicate_has_no_say_in_whether_it_is_the_last() -> None:
    clear, scattered = [log(1.3), log(1.301), log(1.299)], [log(1.3), log(1.1), log(1.5)]
    assert not is_settled(clear)
    assert is_settled([*clear, log(0.9)])
    assert not is_settled([*scattered, log(1.3)])


@pytest.mark.parametrize(
    ("centre", "error", "count"), [(0.05, 0.02, 4), (0.0, 0.02, 4), (-0.1, 0.05, 6), (0.019, 0.01, 5)]
)
def test_so_many_more_processes_would_decide_it_and_one_less_would_not(centre: float, error: float, count: int) -> None:
    more = LogRatio(centre, error, count).more_replicates()
    distance, scatter = abs(abs(centre) - log(1.02)), error * count**0.5

    def half(replicates: int) -> float:
        return float(stats.t.ppf(0.975, replicates - 1) * scatter / replicates**0.5)

    if more is None:
        assert half(1000) >= distance
    else:
        assert half(count + more) < distance <= half(count + more - 1)


@pytest.mark.parametrize(("replicates", "rounds"), [(4, 3), (8, 6)])
@pytest.mark.parametrize(("between", "within"), [(0.02, 0.02), (0.05, 0.01), (0.01, 0.05)])
def test_intervals_cover_the_truth_as_often_as_they_say(
    replicates: int, rounds: int, between: float, within: float
) -> None:
    random = np.random.default_rng(2013)
    shape = (1500, replicates, rounds)
    noise = random.normal(0, between, (*shape[:2], 1)) + random.normal(0, within, shape)
    found = [LogRatio.of(logs).interval() for logs in np.median(log(1.3) + noise, axis=2).tolist()]
    covered = np.mean([item.low <= 1.3 <= item.high for item in found if item.low and item.high])
    assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize(
    ("wins", "losses", "examples", "low", "high"),
    [
        # by hand: (9.5 - 11.5)/1002 ∓ 1.96·√(21 - 4/1002)/1002
        (9, 11, 1000, -0.0109594, 0.0069673),
        # no answer differs: 0 ∓ 1.96·√1/102
        (0, 0, 100, -0.0192157, 0.0192157),
        # (20.5 - 5.5)/402 ∓ 1.96·√(26 - 225/402)/402
        (20, 5, 400, 0.0127210, 0.0619059),
    ],
)
def test_the_accuracy_difference_is_agresti_and_mins(
    wins: int, losses: int, examples: int, low: float, high: float
) -> None:
    found = accuracy_difference(wins, losses, examples)
    assert found.estimate == pytest.approx((wins - losses) / examples)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(("win", "loss", "examples"), [(0.05, 0.05, 200), (0.1, 0.02, 200), (0.02, 0.03, 1000)])
def test_the_accuracy_difference_covers_the_truth(win: float, loss: float, examples: int) -> None:
    random = np.random.default_rng(2005)
    drawn = random.multinomial(examples, [win, loss, 1 - win - loss], 2000)
    found = [accuracy_difference(int(wins), int(losses), examples) for wins, losses, _ in drawn]
    covered = np.mean([item.low <= win - loss <= item.high for item in found if item.low and item.high])
    assert 0.935 <= covered <= 0.985
