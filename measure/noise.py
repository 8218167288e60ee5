"""How evenly this machine does the same work now: what a difference must exceed to be seen at once."""

import hashlib
import time
from collections.abc import Callable
from statistics import median, quantiles

import msgspec

from measure.core_distance import CoreDistance
from measure.core_latency import CoreLatency
from measure.machine import Load, watch_load

BLOCK = bytes(4_000_000)
REPEATS = 200
LOOKS = 1500
"""Half a second of them, because a host may bring CPUs that work together; it need not."""


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """`repeats` times of one fixed piece of work on one core: their median, and how far the 10th and the 90th
    percentile lie from it as shares of it. `load` is what others did before; `cores` is what was seen after the
    repeats of how far apart CPUs lie while they work, `None` where nothing was."""

    repeats: int
    median_s: float
    low_fraction: float
    high_fraction: float
    load: Load
    cores: CoreDistance | None = None


def listen(
    threads: int,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
    work: Callable[[], object] = lambda: hashlib.sha256(BLOCK).digest(),
) -> Noise:
    """Watch the load for a second, then time `work` again and again, and look at the CPUs of so many threads:
    about three seconds in all."""
    load = watch_load()
    samples = []
    work()
    with CoreLatency(threads) as cores:
        for _ in range(repeats):
            start = clock()
            work()
            samples.append(clock() - start)
        looks_ns = [cores.look() for _ in range(LOOKS)]
    middle = median(samples)
    deciles = quantiles(samples, n=10, method="inclusive")
    return Noise(
        repeats=repeats,
        median_s=middle,
        low_fraction=deciles[0] / middle - 1,
        high_fraction=deciles[-1] / middle - 1,
        load=load,
        cores=CoreDistance.of([ns for ns in looks_ns if ns is not None]),
    )
