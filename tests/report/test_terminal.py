"""Progress as a log has it: how far, and how long the rest takes."""

import pytest

from report import terminal
from report.terminal import ProgressBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the bar sees, to be set."""
    now = [1000.0]
    monkeypatch.setattr(terminal, "monotonic", lambda: now[0])
    return now


def test_time_left_is_worked_out_from_what_was_done_now(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Of 100 steps an earlier attempt did 50; ten more took 20 seconds, so the last 40 take 80."""
    bar = ProgressBar()
    bar("fine-tune", 50, 100)
    clock[0] += 20
    bar("fine-tune", 60, 100, "loss 0.1")
    clock[0] += 80
    bar("fine-tune", 100, 100)
    assert capsys.readouterr().err.splitlines() == [
        *("  fine-tune 50/100", "  fine-tune 60/100, 80 s left, loss 0.1", "  fine-tune 100/100")
    ]


def test_a_new_stage_begins_anew(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """As one does whose steps are counted now: of 24 measurements eight were there, and the ninth took a minute."""
    bar = ProgressBar()
    bar("compare", 1, 2, "looking at what can run here")
    clock[0] += 60
    bar("compare", 8, 24)
    clock[0] += 60
    bar("compare", 9, 24)
    clock[0] += 60
    bar("compare", 10, 30)  # more of them, because something is not settled yet
    assert capsys.readouterr().err.splitlines()[-2:] == ["  compare 9/24, 900 s left", "  compare 10/30, 1200 s left"]
