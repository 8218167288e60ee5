import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from measure.memory import read_memory
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
    before = read_memory().uss_bytes
    block = np.ones(8 * MB)
    held = read_memory().uss_bytes
    del block
    assert held - before == pytest.approx(64 * MB, abs=8 * MB)
    assert read_memory().uss_bytes - before == pytest.approx(0, abs=8 * MB)


def test_it_is_the_memory_of_the_process_that_asks() -> None:
    code = "from measure.memory import read_memory; print(read_memory().rss_bytes)"
    small = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    block = np.ones(40 * MB)
    assert int(small.stdout) < block.nbytes < read_memory().rss_bytes
    assert read_memory().rss_bytes == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, abs=8 * MB)
