"""What turns say, worked out by hand and by scipy."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from artifact.run_folder import RunFolder
from side_by_side.curves import draw, smooth
from side_by_side.judge import accuracy_difference, log_ratios, loss_distance
from side_by_side.records import TurnRecord


def turn(setting: str, first: int, last: int, seconds_s: float) -> TurnRecord:
    return TurnRecord(lesson="x", setting=setting, first=first, last=last, seconds_s=seconds_s, energy_j=None)


def run(folder: Path, logits: list[list[float]], truth: list[int], losses: list[float]) -> RunFolder:
    made = RunFolder(folder)
    folder.mkdir()
    np.savez(made.predictions, logits=np.array(logits), truth=np.array(truth))
    made.losses.write_text("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in enumerate(losses, start=1)))
    return made


def test_only_turns_of_the_same_steps_are_compared_and_the_first_is_not() -> None:
    turns = [
        *(turn("a", 1, 5, 9.0), turn("a", 6, 10, 2.0), turn("a", 11, 15, 3.0), turn("a", 16, 20, 1.0)),
        *(turn("b", 1, 5, 1.0), turn("b", 6, 10, 1.0), turn("b", 11, 15, 1.0), turn("b", 16, 18, 1.0)),
    ]
    assert log_ratios(turns, "a", "b") == pytest.approx([log(2), log(3)])


def test_of_a_turn_that_was_taken_twice_the_later_counts() -> None:
    turns = [turn("a", 6, 10, 7.0), turn("a", 6, 10, 4.0), turn("b", 6, 10, 2.0)]
    assert log_ratios(turns, "a", "b") == pytest.approx([log(2)])


def test_accuracies_are_compared_by_pairs(tmp_path: Path) -> None:
    """Right: the one in 3 of 4, the baseline in 2, and both in 2 of them."""
    one = run(tmp_path / "one", [[1, 0], [0, 1], [1, 0], [1, 0]], [0, 1, 0, 1], [])
    base = run(tmp_path / "base", [[1, 0], [0, 1], [0, 1], [1, 0]], [0, 1, 0, 1], [])
    found = accuracy_difference(one, base)
    assert found.estimate == 1 / 4
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < 1 / 4 < found.high


def test_distance_is_the_mean_over_the_steps_of_both(tmp_path: Path) -> None:
    one = run(tmp_path / "one", [[1, 0]], [0], [1.0, 0.5, 0.25, 9.0])
    base = run(tmp_path / "base", [[1, 0]], [0], [1.0, 1.0, 0.5])
    assert loss_distance(one, base) == pytest.approx((0 + 0.5 + 0.25) / 3)


def test_an_interval_is_that_of_scipy(tmp_path: Path) -> None:
    from measure.statistics import LogRatio

    logs = [0.1, 0.12, 0.05, 0.2, 0.15]
    found = LogRatio.of([[value] for value in logs]).interval()
    low, high = stats.t.interval(0.95, 4, np.mean(logs), stats.sem(logs))
    assert (found.low, found.high) == pytest.approx((exp(low), exp(high)))


def test_curves_are_drawn_for_each_setting_with_its_name() -> None:
    svg = draw({"cpu/fp32": np.linspace(1, 0.2, 100), "cpu/<bf16>": np.linspace(1.1, 0.2, 100)})
    assert svg.count("<polyline") == 2
    assert "cpu/fp32" in svg
    assert "cpu/&lt;bf16&gt;" in svg
    assert "<script" not in svg


def test_one_step_is_a_curve_too() -> None:
    assert "<polyline" in draw({"a": np.array([0.5])})
    np.testing.assert_allclose(smooth(np.arange(100.0))[:2], [1.5, 2.5])
