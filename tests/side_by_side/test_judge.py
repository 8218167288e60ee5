"""What turns say, worked out by hand and by scipy."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from artifact.run_folder import RunFolder
from measure.process import WorkerFailed
from models.metrics import ACCURACY
from models.training import TrainingRecord
from side_by_side.curves import draw, smooth
from side_by_side.judge import Outcome, difference, energy, judge, log_ratios, loss_distance
from side_by_side.messages import Learnt
from side_by_side.records import Place, TurnRecord
from side_by_side.setting import Setting, parse_settings
from tests.models.conftest import Trained


def turn(
    setting: str,
    first: int,
    last: int,
    seconds_s: float,
    *,
    session: str = "x",
    opening: bool = False,
    joules: float | None = None,
) -> TurnRecord:
    return TurnRecord(
        session=session,
        training="t",
        setting=setting,
        opening=opening,
        first=first,
        last=last,
        seconds_s=seconds_s,
        energy_j=joules,
    )


def run(folder: Path, logits: list[list[float]], truth: list[int], losses: list[float]) -> RunFolder:
    made = RunFolder(folder)
    folder.mkdir()
    right = np.argmax(logits, axis=1) == np.array(truth)
    np.savez(made.predictions, statistics=np.stack((right, np.ones_like(right)), axis=1).astype(np.float64))
    made.losses.write_text("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in enumerate(losses, start=1)))
    return made


def test_only_turns_of_the_same_steps_are_compared_and_the_first_of_a_process_is_not() -> None:
    turns = [
        *(turn("a", 1, 5, 9.0, opening=True), turn("a", 6, 10, 2.0), turn("a", 11, 15, 3.0), turn("a", 16, 20, 1.0)),
        *(turn("b", 1, 5, 1.0, opening=True), turn("b", 6, 10, 1.0), turn("b", 11, 15, 1.0), turn("b", 16, 18, 1.0)),
    ]
    assert log_ratios(turns, "a", "b") == pytest.approx([log(2), log(3)])


def test_turns_of_different_sessions_did_not_alternate_and_are_not_compared() -> None:
    turns = [turn("a", 6, 10, 7.0, session="yesterday"), turn("b", 6, 10, 2.0, session="today")]
    assert log_ratios(turns, "a", "b") == []
    turns += [turn("a", 11, 15, 4.0, session="today"), turn("b", 11, 15, 2.0, session="today")]
    assert log_ratios(turns, "a", "b") == pytest.approx([log(2)])


def test_a_process_that_goes_on_leaves_its_first_turn_out_too() -> None:
    turns = [turn("a", 41, 45, 9.0, session="later", opening=True), turn("b", 41, 45, 1.0, session="later")]
    assert log_ratios(turns, "a", "b") == []


def test_energy_counts_each_step_once() -> None:
    turns = [turn("a", 1, 4, 1.0, joules=8.0), turn("a", 5, 8, 1.0, joules=4.0), turn("a", 3, 8, 1.0, joules=12.0)]
    assert energy(turns, "a") == pytest.approx(2 * 2 + 6 * 2)
    assert energy([*turns, turn("a", 9, 9, 1.0)], "a") is None
    assert energy(turns, "b") is None


def test_accuracies_are_compared_by_pairs(tmp_path: Path) -> None:
    """Right: the one in 3 of 4, the baseline in 2, and both in 2 of them."""
    one = run(tmp_path / "one", [[1, 0], [0, 1], [1, 0], [1, 0]], [0, 1, 0, 1], [])
    base = run(tmp_path / "base", [[1, 0], [0, 1], [0, 1], [1, 0]], [0, 1, 0, 1], [])
    found = difference(one, base, ACCURACY)
    assert found.estimate == 1 / 4
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < 1 / 4 < found.high


def test_distance_is_the_mean_over_the_steps_of_both(tmp_path: Path) -> None:
    one = run(tmp_path / "one", [[1, 0]], [0], [1.0, 0.5, 0.25, 9.0])
    base = run(tmp_path / "base", [[1, 0]], [0], [1.0, 1.0, 0.5])
    assert loss_distance(one, base) == pytest.approx((0 + 0.5 + 0.25) / 3)


def learnt(run: RunFolder, trained: TrainingRecord) -> Learnt:
    return Learnt(record=trained, made=True, peak_bytes=5, device_peak_bytes=None)


def test_a_row_says_what_its_turns_losses_and_answers_show(tmp_path: Path, trained: Trained) -> None:
    """Four turns of each after the first; the interval is scipy's."""
    place, settings = Place(tmp_path), parse_settings("cpu/fp32,cpu/bf16,cuda/bf16")
    for setting, losses in zip(settings[:2], ([1.0, 0.5], [1.0, 0.7]), strict=True):
        run(place.run(setting.folder), [[1, 0], [0, 1]], [0, 1], losses)
    seconds = {"cpu/fp32": (9.0, 2.0, 2.2, 2.1, 2.4), "cpu/bf16": (1.0, 1.0, 1.2, 1.0, 1.1)}
    turns = [
        turn(name, 1 + 5 * at, 5 + 5 * at, value, opening=at == 0)
        for name, values in seconds.items()
        for at, value in enumerate(values)
    ]
    done = learnt(RunFolder(tmp_path), trained.record)
    outcomes: list[tuple[Setting, Outcome]] = [
        (settings[0], done),
        (settings[1], done),
        (settings[2], WorkerFailed("no GPU", "buy one")),
    ]
    (base, other, absent), baseline = judge(outcomes, turns, place)
    logs = np.log(np.divide(seconds["cpu/fp32"][1:], seconds["cpu/bf16"][1:]))
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert baseline == base.setting == "cpu/fp32"
    assert other.speed is not None
    assert (other.speed.value, other.speed.low, other.speed.high) == pytest.approx(
        (exp(logs.mean()), exp(low), exp(high))
    )
    assert (other.decision, other.peak_bytes) == ("faster", 5)
    assert other.loss_distance == pytest.approx(0.1)
    assert other.difference is not None
    assert other.difference.value == 0
    assert (base.speed, base.loss_distance) == (None, None)
    assert (absent.reason, absent.hint) == ("no GPU", "buy one")


def test_curves_are_drawn_for_each_setting_with_its_name() -> None:
    svg = draw({"cpu/fp32": np.linspace(1, 0.2, 100), "cpu/<bf16>": np.linspace(1.1, 0.2, 100)})
    assert svg.count("<polyline") == 2
    assert "cpu/fp32" in svg
    assert "cpu/&lt;bf16&gt;" in svg
    assert "<script" not in svg


def test_one_step_is_a_curve_too() -> None:
    assert "<polyline" in draw({"a": np.array([0.5])})
    np.testing.assert_allclose(smooth(np.arange(100.0))[:2], [1.5, 2.5])
