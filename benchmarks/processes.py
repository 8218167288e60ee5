"""Programs run in processes of their own, and two sides of them compared in pairs."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from time import perf_counter

from measure.statistics import LogRatio


@dataclass(frozen=True, slots=True)
class Finished:
    """One process: its wall-clock seconds, its peak resident bytes, and what it printed."""

    seconds_s: float
    peak_bytes: int
    printed: str


def finished(command: Sequence[str]) -> Finished:
    """Run a command to its end. Raises `RuntimeError` when it fails."""
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        printed = process.stdout.read() if process.stdout else ""
        code, peak_bytes = reaped(process)
    if code:
        raise RuntimeError(f"{' '.join(command[:3])} ended with code {code}")
    return Finished(perf_counter() - start, peak_bytes, printed)


def reaped(process: "subprocess.Popen[str]") -> tuple[int, int]:
    """Wait for a process: its exit code, and the peak resident bytes that the kernel counted for it alone."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss * 1024


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Paired ratio theirs / ours with its 95 % interval, where there are pairs enough for one."""
    found = LogRatio.of([log(b / a) for a, b in zip(ours, theirs, strict=True)]).interval()
    interval = "" if found.low is None else f" [{found.low:.2f}–{found.high:.2f}]"
    return f"{found.estimate:.2f}×{interval}"
