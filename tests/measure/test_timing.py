import gc
from collections.abc import Iterator

import numpy as np
import pytest

from measure.timing import passes_for, time_device_passes, time_passes, warm_up
from runtimes.base import Batch, Outputs
from tests.fakes import FakeClock, FakeRuntime


def batch(length: int) -> Batch:
    ids = np.ones((1, length), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": ids}


ONE, TWO = [batch(1)], [batch(1), batch(2)]


@pytest.fixture(autouse=True)
def small_heap() -> Iterator[None]:
    """What other tests left behind need not be looked at before every pass."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=[True, False], ids=["gc on", "gc off"])
def collecting(request: pytest.FixtureRequest) -> Iterator[bool]:
    was = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was else gc.disable)()


class Watcher(FakeRuntime):
    """Notes whether garbage is collected during a call; breaks at the third."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.collecting: list[bool] = []

    def run(self, batch: Batch) -> Outputs:
        self.collecting.append(gc.isenabled())
        if len(self.collecting) == 3:
            raise ZeroDivisionError
        return super().run(batch)


def test_every_call_is_timed_alone_and_in_order() -> None:
    clock = FakeClock()
    with FakeRuntime(clock, (4, 1, 2, 8, 16, 32)) as runtime:
        assert time_passes(runtime, TWO, 3, clock) == [4, 1, 2, 8, 16, 32]
        assert [item["input_ids"].shape[1] for item in runtime.batches] == [1, 2] * 3


def test_the_device_is_timed_without_the_copies_to_it() -> None:
    clock = FakeClock()
    with FakeRuntime(clock, (64,), device_durations_s=(9, 9, 1, 2, 4, 8), copy_s=1000) as runtime:
        assert time_device_passes(runtime, TWO, 2, clock) == [1, 2, 4, 8]
        assert runtime.batches == []
        assert [item["input_ids"].shape[1] for item in runtime.computed] == [1, 2] * 3  # once before the clock


def test_where_the_host_is_the_device_there_is_no_second_clock() -> None:
    with FakeRuntime(FakeClock(), (4,)) as runtime:
        assert time_device_passes(runtime, TWO, 3) == []
        assert runtime.batches == runtime.computed == []


def test_no_pass_is_no_call() -> None:
    with FakeRuntime(FakeClock()) as runtime:
        assert time_passes(runtime, TWO, 0) == []
        assert runtime.batches == []


def test_garbage_waits_for_the_end_of_the_passes(collecting: bool) -> None:
    with Watcher() as runtime:
        time_passes(runtime, TWO, 1)
        assert runtime.collecting == [False, False]
    assert gc.isenabled() is collecting


def test_an_error_leaves_garbage_collection_as_it_was(collecting: bool) -> None:
    with Watcher() as runtime, pytest.raises(ZeroDivisionError):
        time_passes(runtime, TWO, 2)
    assert gc.isenabled() is collecting


@pytest.mark.parametrize(
    ("durations", "samples", "level"),
    [
        ((1,), [1, 1, 1], True),
        ((16, 8, 4, 2, 2), [16, 8, 4, 2, 2, 2], True),
        ((5, 5.5, 6), [5, 5.5, 6], True),  # exactly the factor 1.2
        ((6, 5.5, 5), [6, 5.5, 5], True),
        ((5, 5.5, 6.25, 6, 6), [5, 5.5, 6.25, 6], True),
        ((32, 64, 32, 64, 32, 64, 32), [32, 64, 32], False),  # 128 s reach the limit
        ((16, 32, 16, 32, 16), [16, 32, 16, 32, 16], False),  # 96 s do not, 112 s do
        ((1000, 1, 10), [1000, 1, 10], False),  # three passes even when the first is over the limit
    ],
)
def test_warm_up_ends_when_level_or_at_the_limit(
    durations: tuple[float, ...], samples: list[float], level: bool
) -> None:
    clock = FakeClock()
    with FakeRuntime(clock, durations) as runtime:
        assert warm_up(runtime, ONE, 100, clock) == (samples, level)


def test_warm_up_is_judged_by_whole_passes_not_by_calls() -> None:
    clock = FakeClock()
    with FakeRuntime(clock, (1, 7, 2, 6, 4, 4)) as runtime:
        assert warm_up(runtime, TWO, 100, clock) == ([1, 7, 2, 6, 4, 4], True)
    with FakeRuntime(clock, (1, 1, 2, 2, 1, 1, 2, 2)) as runtime:
        assert warm_up(runtime, TWO, 11, clock) == ([1, 1, 2, 2, 1, 1, 2, 2], False)


@pytest.mark.parametrize(
    ("samples", "batches", "expected"),
    [
        ([9, 0.125, 0.125, 0.125], 1, 8),
        ([9, 9, 0.5, 0.25, 0.125], 1, 4),  # the median of the last three
        ([9, 9, 0.125, 0.125, 0.25, 0.0, 0.125, 0.125], 2, 4),  # passes of two calls, a quarter of a second each
        ([0.25, 0.25, 0.25], 1, 4),
        ([60, 60, 60], 1, 2),
        ([1e-6] * 3, 1, 50),
        ([0.0] * 3, 1, 50),
    ],
)
def test_passes_fill_the_block_within_their_bounds(samples: list[float], batches: int, expected: int) -> None:
    assert passes_for(samples, batches, block_s=1, least=2, most=50) == expected
