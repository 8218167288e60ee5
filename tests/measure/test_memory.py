import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from measure.memory import read_device_bytes, read_memory
from tests.conftest import ROOT

MB = 1_000_000
linux_only = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux' smaps_rollup")


@linux_only
def test_memory_is_what_the_kernel_counts() -> None:
    found = read_memory()
    kernel = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    counted = {name: int(value.split()[0]) * 1024 for name, value in kernel.items()}
    assert found.rss_bytes == pytest.approx(counted["Rss"], abs=4 * MB)
    assert found.pss_bytes == pytest.approx(counted["Pss"], abs=4 * MB)
    assert found.uss_bytes == pytest.approx(counted["Private_Clean"] + counted["Private_Dirty"], abs=4 * MB)
    assert found.pss_bytes
    assert found.uss_bytes <= found.pss_bytes <= found.rss_bytes


def test_what_a_process_takes_and_gives_back_is_seen() -> None:
    """Pages of its own, which nobody may share: what an allocator hands out may have been this process's before."""
    before = read_memory().uss_bytes
    with mmap.mmap(-1, 64 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for _ in range(64):
            block.write(b"1" * MB)
        held = read_memory().uss_bytes
    assert held - before == pytest.approx(64 * MB, abs=8 * MB)
    assert read_memory().uss_bytes - before == pytest.approx(0, abs=8 * MB)


class Nvml:
    """NVML on a machine with two GPUs; `processes` are (pid, bytes) on each."""

    class NVMLError(Exception):
        pass

    def __init__(self, *processes: list[tuple[int, int | None]], broken: bool = False) -> None:
        self._processes, self._broken = processes, broken

    def nvmlInit(self) -> None:  # noqa: N802  NVML's names
        if self._broken:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._processes)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: int) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self._processes[gpu]]


def test_device_memory_is_what_this_process_holds_on_every_gpu() -> None:
    mine = os.getpid()
    assert read_device_bytes(Nvml([(mine, 500), (mine + 1, 9000)], [(mine, 20)])) == 520


@pytest.mark.parametrize(
    "nvml", [Nvml([(-1, 9000)], []), Nvml([(os.getpid(), None)]), Nvml([(os.getpid(), 5)], broken=True)]
)
def test_device_memory_that_nobody_knows_is_none(nvml: Nvml) -> None:
    assert read_device_bytes(nvml) is None


def test_it_is_the_memory_of_the_process_that_asks() -> None:
    code = "from measure.memory import read_memory; print(read_memory().rss_bytes)"
    small = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    block = np.ones(40 * MB)
    assert int(small.stdout) < block.nbytes < read_memory().rss_bytes
    assert read_memory().rss_bytes == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, abs=8 * MB)
