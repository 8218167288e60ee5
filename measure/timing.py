"""Seconds of calls, with nothing else in between.

By the contract of `Runtime` one clock fits all devices: `run` returns when the result is on the host, and what `bind`
gives when the device has finished.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Protocol, TypeVar

from runtimes.base import Batch, Runtime

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
    """Seconds of each call from host to host, `passes` times over `batches` in their order."""
    return _time([partial(runtime.run, batch) for batch in batches], passes, clock)


def time_device_passes(
    runtime: Runtime, batches: Sequence[Batch], passes: int, clock: Clock = time.perf_counter
) -> list[float]:
    """Seconds of each call on the device alone, in the order of `time_passes`; none where the host is the device.

    The batches are copied to the device, and each is computed once, before the first clock is read.
    """
    bound = [call for batch in batches if (call := runtime.bind(batch)) is not None]
    for call in bound:
        call()
    return _time(bound, passes, clock)


def _time(calls: Sequence[Callable[[], object]], passes: int, clock: Clock) -> list[float]:
    samples = []
    with without_collection():
        for _ in range(passes):
            for call in calls:
                start = clock()
                call()
                samples.append(clock() - start)
    return samples


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect garbage before the block, and none until it ends."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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
        if is_level(passes):
            return samples, True
        if len(passes) >= LEVEL_PASSES and sum(samples) >= limit_s:
            return samples, False


def is_level(passes: Sequence[float]) -> bool:
    """Whether the seconds of the last passes are alike, so that warm-up has ended."""
    last = passes[-LEVEL_PASSES:]
    return len(last) == LEVEL_PASSES and max(last) <= LEVEL_SPREAD * min(last)


def passes_for(samples: Sequence[float], batches: int, block_s: float, least: int, most: int) -> int:
    """How many passes fill `block_s` seconds, judged by the last three passes of the warm-up."""
    passes = [sum(samples[start : start + batches]) for start in range(0, len(samples), batches)]
    return max(least, min(most, round(block_s / max(median(passes[-LEVEL_PASSES:]), 1e-9))))
