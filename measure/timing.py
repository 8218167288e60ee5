"""Seconds of calls, with nothing else in between. By the contract of `Runtime.run` one clock fits all devices."""

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)
T = TypeVar("T")
Clock = Callable[[], float]
"""Seconds from an arbitrary start, as `time.perf_counter`."""


class Runs(Protocol[T_contra]):
    """A runtime, or anything else whose `run` is timed."""

    def run(self, batch: T_contra) -> object:
        """Do the work of one sample; returns when it is done."""


LEVEL_PASSES = 3
LEVEL_SPREAD = 1.2
"""Warm-up has ended when this many passes in a row differ by no more than this factor."""


def time_passes(runtime: Runs[T], batches: Sequence[T], passes: int, clock: Clock = time.perf_counter) -> list[float]:
    """Seconds of each call, `passes` times over `batches` in their order; garbage collection waits meanwhile."""
    samples = []
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(passes):
            for batch in batches:
                start = clock()
                runtime.run(batch)
                samples.append(clock() - start)
    finally:
        if was_enabled:
            gc.enable()
    return samples


def warm_up(
    runtime: Runs[T], batches: Sequence[T], limit_s: float, clock: Clock = time.perf_counter
) -> tuple[list[float], bool]:
    """Run passes until the last three are level or `limit_s` seconds are over, at least three.

    Returns the seconds of every call, and whether it became level.
    """
    samples: list[float] = []
    passes: list[float] = []
    while True:
        samples += time_passes(runtime, batches, 1, clock)
        passes.append(sum(samples[-len(batches) :]))
        last = passes[-LEVEL_PASSES:]
        if len(last) == LEVEL_PASSES and max(last) <= LEVEL_SPREAD * min(last):
            return samples, True
        if len(passes) >= LEVEL_PASSES and sum(samples) >= limit_s:
            return samples, False


def passes_for(samples: Sequence[float], batches: int, block_s: float, least: int, most: int) -> int:
    """How many passes fill `block_s` seconds, judged by the last three passes of the warm-up."""
    passes = [sum(samples[start : start + batches]) for start in range(0, len(samples), batches)]
    return max(least, min(most, round(block_s / max(median(passes[-LEVEL_PASSES:]), 1e-9))))
