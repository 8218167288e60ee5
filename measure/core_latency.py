"""How long a cache line takes from one CPU to another and back: what threads that share work wait for.

A virtual machine's CPUs are moved about by its host. Where two of them lie in different core complexes for a while, a
line takes several times as long, and an engine's threads with it, each engine's by another factor; neither the load nor
stolen time shows it.
"""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from types import TracebackType
from typing import Self

from measure import core_partner
from measure.core_distance import is_apart, least_latency
from measure.core_partner import CHUNKS, OURS, THEIRS, VOLLEYS, wait_for

PARTNER = Path(core_partner.__file__)

MOST_PARTNERS = 7
"""More CPUs than this and the first one are not looked at."""

LEAST_PATIENCE = 1 / 32
"""The least share of the longest wait that is waited after waits in vain."""


class CoreLatency:
    """Looks at the latency between the first CPU that this process may use and the others, each from a process that
    stays on its CPU and sleeps between looks. For one thread or one CPU, or where the system pins no process or makes
    none, it sees nothing."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._cpus: Sequence[int] = ()
        self._partners: list[subprocess.Popen[bytes]] = []
        self._board: memoryview | None = None
        self._seen: list[float] = []
        self._patience = 1.0

    def __enter__(self) -> Self:
        if sys.platform != "linux" or min(self._threads, len(cpus := sorted(os.sched_getaffinity(0)))) < 2:
            return self
        self._cpus = cpus
        try:
            self._open_board()
        except OSError:  # files or processes are limited, which what needs them tells
            self._board = None
        return self

    def _open_board(self) -> None:
        number = os.memfd_create("steelyard")
        try:
            os.ftruncate(number, mmap.PAGESIZE)
            self._board = memoryview(mmap.mmap(number, mmap.PAGESIZE))
            for cpu in self._cpus[1 : 1 + MOST_PARTNERS]:
                partner = subprocess.Popen(
                    [sys.executable, "-P", "-S", str(PARTNER), str(number), str(cpu)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    pass_fds=[number],
                )
                self._partners.append(partner)
        finally:
            os.close(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for partner in self._partners:
            partner.kill()
            partner.wait()
            for stream in (partner.stdin, partner.stdout):
                if stream is not None:
                    stream.close()

    def settle(self, least_s: float, most_s: float) -> float | None:
        """Let what spins fall asleep, at least so many seconds, and CPUs come together, at most so many; the last look.

        It looks all the time, because CPUs that are busy are brought together sooner than those that sleep. Where
        nothing can be seen, it sleeps. Each wait in vain halves the next one's `most_s`, because a host that keeps CPUs
        apart now will for a while, and each that is not doubles it again.
        """
        started, least_ns = time.perf_counter(), least_latency(self._seen)
        most_s = max(least_s, most_s * self._patience)
        while True:
            found_ns = self._look()
            spent_s = time.perf_counter() - started
            if found_ns is None:
                time.sleep(max(0.0, least_s - spent_s))
                return None
            is_vain = is_apart(found_ns, least_ns)
            if spent_s >= most_s or (spent_s >= least_s and not is_vain):
                self._patience = max(LEAST_PATIENCE, self._patience / 2) if is_vain else min(1.0, self._patience * 2)
                self._seen.append(found_ns)
                return found_ns

    def is_apart(self, found_ns: float | None) -> bool:
        """Whether a look tells that CPUs lie apart, by all that were given so far."""
        return found_ns is not None and is_apart(found_ns, least_latency(self._seen))

    def look(self) -> float | None:
        """Nanoseconds there and back, the mean over the other CPUs; `None` where it cannot be seen, and ever after."""
        found_ns = self._look()
        if found_ns is not None:
            self._seen.append(found_ns)
        return found_ns

    def _look(self) -> float | None:
        if self._board is None:
            return None
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus[:1])
        try:
            return fmean(_rally(self._board, partner) for partner in self._partners)
        except (OSError, TimeoutError):  # a partner was killed, or its CPU is not to be had
            self._board = None
            return None
        finally:
            os.sched_setaffinity(0, allowed)


def _rally(board: memoryview, partner: "subprocess.Popen[bytes]") -> float:
    """Nanoseconds of a volley with a partner. Raises `TimeoutError` or `OSError` when it does not answer."""
    if partner.stdin is None or partner.stdout is None:
        raise RuntimeError("a partner is always started with pipes")
    board[0] = OURS
    partner.stdin.write(b"\n")
    if not partner.stdout.read(1):
        raise BrokenPipeError("the partner has ended")
    wait_for(board, THEIRS)
    means = []
    for _ in range(CHUNKS):
        start = time.perf_counter()
        for _ in range(VOLLEYS):
            board[0] = OURS
            wait_for(board, THEIRS)
        means.append((time.perf_counter() - start) / VOLLEYS)
    return median(means) * 1e9
