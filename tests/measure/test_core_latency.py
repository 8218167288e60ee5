"""Hand-overs between real CPUs, where there are two, and what is told of looks made by hand."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from measure import core_latency
from measure.core_distance import CoreDistance, is_apart, least_latency
from measure.core_latency import CoreLatency

TWO_CPUS = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="there is one CPU, or none can be chosen"
)
TOGETHER, APART = 200.0, 350.0


@TWO_CPUS
def test_a_look_tells_a_time_between_the_speed_of_light_and_that_of_the_scheduler() -> None:
    """20 ns is less than two clock cycles of a cache take in both directions; 100 µs more than a system call."""
    before = os.sched_getaffinity(0)
    with CoreLatency(2) as cores:
        looks = [cores.look() for _ in range(5)]
    assert all(ns is not None and 20 < ns < 1e5 for ns in looks)
    assert os.sched_getaffinity(0) == before


@TWO_CPUS
def test_partners_sleep_between_looks_and_end_with_the_block() -> None:
    with CoreLatency(2) as cores:
        cores.look()
        (partner, *_) = cores._partners
        used_s = cpu_s(partner.pid)
        time.sleep(0.3)
        assert cpu_s(partner.pid) - used_s <= 0.02
    assert partner.poll() is not None


@TWO_CPUS
def test_a_partner_that_is_killed_ends_looking_and_nothing_else() -> None:
    with CoreLatency(2) as cores:
        assert cores.look() is not None
        for partner in cores._partners:
            os.kill(partner.pid, signal.SIGKILL)
            partner.wait()
        assert cores.look() is None
        assert cores.settle(0.0, 1.0) is None


@TWO_CPUS
def test_a_partner_whose_harness_is_killed_ends() -> None:
    program = (
        "import os, signal\n"
        "from measure.core_latency import CoreLatency\n"
        "with CoreLatency(2) as cores:\n"
        "    cores.look()\n"
        "    print(*(partner.pid for partner in cores._partners), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(core_latency.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 10
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, pids))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_for_one_thread_nothing_is_seen_and_settling_is_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("measure.core_latency.time.sleep", pauses.append)
    with CoreLatency(1) as cores:
        assert cores.settle(0.25, 10.0) is None
        assert cores.look() is None
        assert not cores.is_apart(None)
    assert pauses == [pytest.approx(0.25, abs=0.05)]


@TWO_CPUS
def test_where_no_file_can_be_made_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(number: int, length: int) -> None:
        raise OSError(27, "File too large")

    monkeypatch.setattr("measure.core_latency.os.ftruncate", limited)
    with CoreLatency(2) as cores:
        assert cores.look() is None


def scripted(monkeypatch: pytest.MonkeyPatch, *looks_ns: float) -> tuple[CoreLatency, list[float]]:
    """Looks that are made up, each of which takes 10 ms, the last one again and again; and those that were made."""
    cores, now, made = CoreLatency(1), [0.0], list[float]()
    script = list(looks_ns)

    def look() -> float:
        now[0] += 0.01
        made.append(script.pop(0) if len(script) > 1 else script[0])
        return made[-1]

    monkeypatch.setattr("measure.core_latency.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(cores, "_look", look)
    return cores, made


def test_settling_lasts_at_least_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, made = scripted(monkeypatch, TOGETHER)
    assert cores.settle(0.045, 1.0) == TOGETHER
    assert len(made) == 5


def test_settling_waits_until_cpus_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, made = scripted(monkeypatch, TOGETHER, TOGETHER, *[APART] * 8, TOGETHER)
    assert [cores.look(), cores.look()] == [TOGETHER, TOGETHER]
    assert cores.settle(0.01, 1.0) == TOGETHER
    assert len(made) == 2 + 8 + 1


def test_settling_gives_up_when_its_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, made = scripted(monkeypatch, TOGETHER, TOGETHER, APART)
    assert [cores.look(), cores.look()] == [TOGETHER, TOGETHER]
    assert cores.settle(0.01, 0.035) == APART
    assert len(made) == 2 + 4


def test_each_wait_in_vain_halves_the_next_and_each_other_doubles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of at most eight looks each; the fifth and the sixth end together."""
    cores, made = scripted(monkeypatch, TOGETHER, TOGETHER, *[APART] * 15, TOGETHER, TOGETHER, APART)
    assert [cores.look(), cores.look()] == [TOGETHER, TOGETHER]
    lasted = []
    for _ in range(8):
        before = len(made)
        cores.settle(0.005, 0.075)
        lasted.append(len(made) - before)
    assert lasted == [8, 4, 2, 1, 1, 1, 2, 1]


def test_a_long_row_of_waits_in_vain_is_forgotten_after_a_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    vain, others = 40, 6
    cores, made = scripted(monkeypatch, TOGETHER, TOGETHER, *[APART] * (63 + vain), *[TOGETHER] * others, APART)
    assert [cores.look(), cores.look()] == [TOGETHER, TOGETHER]
    for _ in range(6 + vain + others):
        cores.settle(0.005, 0.315)
    before = len(made)
    cores.settle(0.005, 0.315)
    assert len(made) - before == 32


def test_a_long_wait_with_cpus_apart_does_not_make_that_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, _ = scripted(monkeypatch, TOGETHER, TOGETHER, APART)
    assert [cores.look(), cores.look()] == [TOGETHER, TOGETHER]
    assert cores.settle(0.01, 5.0) == APART
    assert cores.is_apart(APART)


def test_the_least_latency_is_the_lowest_decile() -> None:
    """So one look in ten that was lucky does not tell that all others lay apart."""
    assert least_latency([]) is None
    assert least_latency([TOGETHER]) is None
    assert least_latency([100.0, *[TOGETHER] * 20]) == TOGETHER
    assert not is_apart(APART, None)
    assert is_apart(251.0, 200.0)
    assert not is_apart(250.0, 200.0)


def test_looks_are_summed_up() -> None:
    assert CoreDistance.of([]) is None
    found = CoreDistance.of([TOGETHER] * 6 + [APART, APART + 20])
    assert found == CoreDistance(together_ns=TOGETHER, apart_ns=APART + 10, apart_fraction=0.25)
    assert CoreDistance.of([TOGETHER] * 4) == CoreDistance(together_ns=TOGETHER, apart_ns=None, apart_fraction=0.0)
