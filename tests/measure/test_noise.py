from collections.abc import Callable

import pytest

from measure import noise
from measure.machine import Load
from measure.noise import listen
from tests.fakes import FakeClock

QUIET = Load(watched_s=1.0, busy_fraction=0.0, steal_fraction=None)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "watch_load", lambda: QUIET)


def lasting(clock: FakeClock, *durations_s: float) -> Callable[[], None]:
    left = iter(durations_s)
    return lambda: clock.advance(next(left))


def test_even_work_has_no_spread() -> None:
    clock = FakeClock()
    found = listen(1, 20, clock, lasting(clock, *[2.0] * 21))
    assert (found.median_s, found.low_fraction, found.high_fraction, found.load) == (2.0, 0.0, 0.0, QUIET)


def test_the_spread_is_that_of_the_deciles_around_the_median() -> None:
    """1, 2, … 11 seconds: the median is 6, the 10th percentile 2, the 90th 10; the first call is not counted."""
    clock = FakeClock()
    found = listen(1, 11, clock, lasting(clock, 100.0, *map(float, range(1, 12))))
    assert found.repeats == 11
    assert found.median_s == pytest.approx(6)
    assert found.low_fraction == pytest.approx(2 / 6 - 1)
    assert found.high_fraction == pytest.approx(10 / 6 - 1)
