import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest

from measure.machine import FEATURES, read_machine, watch_load


class Times(NamedTuple):
    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class TimesWithoutSteal(NamedTuple):
    user: float
    system: float
    idle: float


def watch(monkeypatch: pytest.MonkeyPatch, *times: object) -> tuple[float, float | None]:
    answers = iter(times)
    slept: list[float] = []
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(answers))
    monkeypatch.setattr(time, "sleep", slept.append)
    load = watch_load(2.0)
    assert slept == [load.watched_s] == [2.0]
    return load.busy_fraction, load.steal_fraction


BEFORE = Times(100, 10, 50, 1000, 5, 1, 1, 7, 40, 3)


@pytest.mark.parametrize(
    ("spent", "busy", "steal"),
    [
        (Times(idle=4), 0, 0),
        (Times(idle=3, iowait=1), 0, 0),
        (Times(user=4), 1, 0),
        (Times(user=1, nice=0.5, system=0.25, irq=0.125, softirq=0.125, idle=2), 0.5, 0),
        (Times(user=1, idle=2, steal=1), 0.25, 0.25),
        (Times(user=2, guest=2, idle=2), 0.5, 0),  # a guest's time is part of user
        (Times(nice=1, guest_nice=1, idle=3), 0.25, 0),
        (Times(), 0, 0),  # a clock too coarse to have moved
    ],
)
def test_load_is_who_used_the_time_that_passed(
    monkeypatch: pytest.MonkeyPatch, spent: Times, busy: float, steal: float
) -> None:
    after = Times(*(one + more for one, more in zip(BEFORE, spent, strict=True)))
    assert watch(monkeypatch, BEFORE, after) == pytest.approx((busy, steal))


def test_a_system_that_does_not_count_steal_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, TimesWithoutSteal(1, 1, 1), TimesWithoutSteal(2, 2, 3)) == (0.5, None)


def test_the_machine_is_what_the_system_says() -> None:
    found = read_machine()
    assert found.cores == os.cpu_count()
    assert found.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 <= found.usable_cores <= len(os.sched_getaffinity(0)) <= found.cores
    assert found.system.split() == [platform.system(), platform.release(), platform.machine()]
    assert found.python == platform.python_version()
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert set(found.cpu_features) == words & set(FEATURES)
    assert set(found.cpu_model.split()) <= words


def test_features_keep_one_order() -> None:
    found = read_machine().cpu_features
    assert list(found) == [name for name in FEATURES if name in found]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"system": "Linux 99.0 x86_64"}, True),  # a kernel update leaves measurements comparable
        ({"python": "9.9"}, True),
        ({"system": "Windows 11 x86_64"}, False),
        ({"cpu_model": "Another CPU"}, False),
        ({"cpu_features": ("sve",)}, False),
        ({"usable_cores": 99}, False),
    ],
)
def test_what_makes_a_machine_another_one(change: dict[str, object], same: bool) -> None:
    found = msgspec.structs.replace(read_machine(), system="Linux 6.1 x86_64", python="3.11.7")
    assert (msgspec.structs.replace(found, **change).identity == found.identity) is same


@pytest.mark.parametrize(("text", "governor"), [("performance\n", "performance"), ("", None), (None, None)])
def test_the_governor_is_what_the_system_says(
    text: str | None, governor: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "scaling_governor").write_text(text)
    monkeypatch.setattr("measure.machine.GOVERNOR", tmp_path / "scaling_governor")
    assert read_machine().governor == governor
