from math import exp, log

import numpy as np
import pytest
from scipy import stats

from artifact.intervals import Interval
from measure.statistics import (
    _T_975,
    Decision,
    accuracy_difference,
    accuracy_interval,
    decide,
    pass_seconds,
    ratio_interval,
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


def test_the_estimate_is_the_mean_of_medians_on_the_scale_of_logarithms() -> None:
    rounds = [[log(2), log(2), log(50)], [log(8), log(8), log(0.1)]]
    assert ratio_interval(rounds, 0).estimate == pytest.approx(4.0)


def test_one_replicate_has_no_interval() -> None:
    found = ratio_interval([[log(2), log(3), log(4)]], 0)
    assert found.estimate == pytest.approx(3.0)
    assert (found.low, found.high) == (None, None)


def test_equal_replicates_have_no_width() -> None:
    found = ratio_interval([[log(1.5)] * 3] * 4, 0)
    assert (found.estimate, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_same_numbers_give_the_same_interval_and_others_do_not() -> None:
    rounds = np.random.default_rng(3).normal(0, 0.1, (4, 3)).tolist()
    assert ratio_interval(rounds, 1) == ratio_interval(rounds, 1)
    assert ratio_interval(rounds, 1) != ratio_interval(rounds, 2)


def test_inverted_ratios_have_the_inverted_interval() -> None:
    rounds = np.random.default_rng(5).normal(0.3, 0.1, (6, 3))
    there, back = ratio_interval(rounds.tolist(), 1), ratio_interval((-rounds).tolist(), 1)
    assert there.estimate == pytest.approx(1 / back.estimate)
    assert there.low
    assert there.high
    assert back.low
    assert back.high
    assert there.low == pytest.approx(1 / back.high, rel=1e-9)
    assert there.high == pytest.approx(1 / back.low, rel=1e-9)


def test_without_noise_inside_replicates_the_interval_is_students() -> None:
    centres = np.array([0.1, 0.2, 0.4, 0.35, 0.15])
    found = ratio_interval([[value] * 3 for value in centres], 0)
    expected = stats.t.interval(0.95, df=4, loc=centres.mean(), scale=stats.sem(centres))
    assert found.low
    assert found.high
    assert [log(found.low), log(found.high)] == pytest.approx(expected, abs=0.01)


def test_noise_between_rounds_widens_the_interval_by_what_it_is() -> None:
    """Of three rounds -d, 0, d the median of three draws is ∓d seven times each in 27, so its variance is 14/27·d²."""
    found = ratio_interval([[-0.03, 0.0, 0.03]] * 4, 0)
    half = stats.t.ppf(0.975, 3) * 0.03 * (14 / 27 / 4) ** 0.5 * (4 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((exp(-half), exp(half)), abs=0.002)


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measure.statistics.RESAMPLES", 1000)


def simulate(replicates: int, rounds: int, true: float, between: float, within: float) -> list[Interval]:
    random = np.random.default_rng(2013)
    return [
        ratio_interval(
            (
                log(true) + random.normal(0, between, (replicates, 1)) + random.normal(0, within, (replicates, rounds))
            ).tolist(),
            seed,
        )
        for seed in range(300)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize(("replicates", "rounds"), [(4, 3), (8, 6)])
@pytest.mark.parametrize(("between", "within"), [(0.02, 0.02), (0.05, 0.01), (0.01, 0.05)])
def test_intervals_cover_the_truth_as_often_as_they_say(
    replicates: int, rounds: int, between: float, within: float
) -> None:
    found = simulate(replicates, rounds, 1.3, between, within)
    covered = np.mean([item.low <= 1.3 <= item.high for item in found if item.low and item.high])
    assert covered >= 0.93


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize(("replicates", "rounds"), [(4, 3), (8, 6)])
def test_a_real_tenth_is_found_and_none_is_invented(replicates: int, rounds: int) -> None:
    real = [decide(item) for item in simulate(replicates, rounds, 1.1, 0.01, 0.01)]
    none = [decide(item) for item in simulate(replicates, rounds, 1.0, 0.01, 0.01)]
    assert real.count(Decision.FASTER) >= 0.95 * len(real)
    assert Decision.SLOWER not in real
    assert none.count(Decision.FASTER) + none.count(Decision.SLOWER) <= 0.05 * len(none)


def test_the_quantiles_are_students() -> None:
    assert stats.t.ppf(0.975, range(1, 16)) == pytest.approx(_T_975, abs=5e-4)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (1.021, 1.5, Decision.FASTER),
        (1.02, 1.5, Decision.INCONCLUSIVE),
        (0.5, 0.98, Decision.SLOWER),
        (0.5, 1 / 1.02, Decision.INCONCLUSIVE),
        (1 / 1.02, 1.02, Decision.EQUIVALENT),
        (0.99, 1.01, Decision.EQUIVALENT),
        (1.005, 1.015, Decision.EQUIVALENT),
        (0.97, 1.01, Decision.INCONCLUSIVE),
        (0.99, 1.03, Decision.INCONCLUSIVE),
        (0.5, 2.0, Decision.INCONCLUSIVE),
        (None, None, Decision.INCONCLUSIVE),
        (1.5, None, Decision.INCONCLUSIVE),
        (None, 0.5, Decision.INCONCLUSIVE),
    ],
)
def test_every_interval_has_its_decision(low: float | None, high: float | None, decision: Decision) -> None:
    assert decide(Interval(1.0, low, high)) is decision


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


def test_beyond_the_table_of_quantiles_the_interval_is_students_too() -> None:
    centres = np.linspace(-0.1, 0.1, 20)
    found = ratio_interval([[value] for value in centres], 0)
    half = stats.t.ppf(0.975, 19) * stats.sem(centres)
    assert (found.low, found.high) == pytest.approx((exp(-half), exp(half)), abs=0.002)


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (83, 100), (832, 1000), (1000, 1000)])
def test_an_accuracy_has_wilsons_interval(right: int, examples: int) -> None:
    found = accuracy_interval(right, examples)
    expected = stats.binomtest(right, examples).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)
