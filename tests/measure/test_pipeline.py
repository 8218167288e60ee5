"""Order, look-ahead and errors by events and barriers, so that no test depends on speed; answers by transformers."""

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from artifact.predict.tokens import TextEncoder, TextItem
from artifact.tokenizer import text_encoder
from measure.pipeline import LOOK_AHEAD, TextRuntime, Way, in_turn, overlapped
from measure.timing import time_passes
from measure.workload import FromText, Inputs, RawText, build_inputs
from runtimes.base import Batch
from runtimes.registry import REFERENCE, open_runtime
from tests.conftest import TEXTS
from tests.fakes import FakeClock, FakeRuntime
from tests.measure.conftest import LIMITS

WAYS = pytest.mark.parametrize("way", [in_turn, overlapped])
LONG_S = 20
"""How long a test waits for what must happen; only a failing one waits so long."""
SHORT_S = 0.2
"""How long a test waits for what must not happen."""

Numbers = Callable[[Callable[[int], int], Callable[[int], int], Sequence[int]], Iterator[int]]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@WAYS
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 50])
def test_every_item_is_encoded_and_run_once_and_in_order(way: Numbers, count: int) -> None:
    encoded, ran = [], []

    def encode(item: int) -> int:
        encoded.append(item)
        return 10 * item

    def run(item: int) -> int:
        ran.append(item)
        return item + 1

    assert list(way(encode, run, range(count))) == [10 * item + 1 for item in range(count)]
    assert encoded == list(range(count))
    assert ran == [10 * item for item in range(count)]


def test_the_next_item_is_encoded_while_one_is_run() -> None:
    """Encoding of each item but the first and running of the one before it wait for each other."""
    meetings = [threading.Barrier(2) for _ in range(5)]

    def encode(item: int) -> int:
        if item > 0:
            meetings[item - 1].wait(LONG_S)
        return item

    def run(item: int) -> int:
        if item < len(meetings):
            meetings[item].wait(LONG_S)
        return item

    assert list(overlapped(encode, run, range(6))) == [0, 1, 2, 3, 4, 5]


def test_in_turn_nothing_is_encoded_while_one_is_run() -> None:
    log = []
    list(in_turn(lambda item: log.append(("encode", item)), lambda _: log.append(("run", len(log) // 2)), range(3)))
    assert log == [(step, item) for item in range(3) for step in ("encode", "run")]


def test_the_thread_looks_two_items_ahead_and_no_further() -> None:
    begun = [threading.Event() for _ in range(6)]
    seen: list[tuple[int, int]] = []

    def encode(item: int) -> int:
        begun[item].set()
        return item

    def run(item: int) -> int:
        last = min(item + LOOK_AHEAD, 5)
        assert begun[last].wait(LONG_S)
        too_far = last + 1 < 6 and begun[last + 1].wait(SHORT_S)
        seen.append((item, -1 if too_far else last))
        return item

    list(overlapped(encode, run, range(6)))
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (5, 5)]


def test_only_the_callers_thread_runs_and_only_the_other_one_encodes() -> None:
    threads: dict[str, set[int]] = {"encode": set(), "run": set()}
    list(
        overlapped(
            lambda _: threads["encode"].add(threading.get_ident()),
            lambda _: threads["run"].add(threading.get_ident()),
            range(4),
        )
    )
    assert threads["run"] == {threading.get_ident()}
    assert len(threads["encode"]) == 1
    assert not threads["encode"] & threads["run"]


@WAYS
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("side", ["encode", "run"])
def test_an_error_surfaces_as_itself_after_the_results_before_it(way: Numbers, side: str, place: int) -> None:
    error = ZeroDivisionError("this very one")

    def fail(who: str) -> Callable[[int], int]:
        def step(item: int) -> int:
            if who == side and item == place:
                raise error
            return item

        return step

    results = way(fail("encode"), fail("run"), range(5))
    assert [next(results) for _ in range(place)] == list(range(place))
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value is error


def test_nothing_more_is_encoded_after_an_error() -> None:
    encoded = []

    def encode(item: int) -> int:
        encoded.append(item)
        return item

    def run(item: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(overlapped(encode, run, range(100)))
    assert encoded == list(range(len(encoded)))
    assert len(encoded) <= 1 + LOOK_AHEAD


def test_an_error_waits_for_the_thread_to_finish_what_it_is_at() -> None:
    begun, release, finished = threading.Event(), threading.Event(), threading.Event()
    timer = threading.Timer(SHORT_S, release.set)

    def encode(item: int) -> int:
        if item == 1:
            begun.set()
            assert release.wait(LONG_S)
            finished.set()
        return item

    def run(item: int) -> int:
        assert begun.wait(LONG_S)  # what waits to be encoded is never begun
        timer.start()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(overlapped(encode, run, range(3)))
    assert finished.is_set()
    timer.join()


def test_one_who_stops_early_leaves_no_thread() -> None:
    results = overlapped(lambda item: item, lambda item: item, range(100))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # it is a generator


# From texts to labels.


class SlowEncoder(TextEncoder):
    """Takes `seconds_s` of the clock for every text."""

    def __init__(self, checkpoint: Path, clock: FakeClock, seconds_s: float) -> None:
        self._inner, self._advance, self._seconds_s = text_encoder(checkpoint, LIMITS), clock.advance, seconds_s

    def encode(self, items: Sequence[TextItem]) -> list[dict[str, list[int]]]:
        self._advance(self._seconds_s * len(items))
        return self._inner.encode(items)

    def pad(self, encoded: Sequence[Any], names: Sequence[str]) -> Any:
        return self._inner.pad(encoded, names)


def test_seconds_of_a_pass_and_of_its_tokenising_are_those_of_the_clock(tiny_checkpoint: Path) -> None:
    clock = FakeClock()
    with FakeRuntime(clock, (8, 16, 32, 64)) as runtime:
        subject = TextRuntime(runtime, SlowEncoder(tiny_checkpoint, clock, 0.5), in_turn, clock)
        assert time_passes(subject, [[TEXTS[:2], TEXTS[2:6]]], 2, clock) == [8 + 16 + 3, 32 + 64 + 3]
        assert subject.tokenise_s == [3, 3]


def test_where_stages_overlap_the_tokenisers_seconds_are_noted_too(tiny_checkpoint: Path) -> None:
    clock = FakeClock()
    with FakeRuntime(clock) as runtime:
        subject = TextRuntime(runtime, SlowEncoder(tiny_checkpoint, clock, 0.5), overlapped, clock)
        subject.run([TEXTS[:2], TEXTS[2:6]])
        assert subject.tokenise_s == [3]


@pytest.fixture(scope="module")
def mixed(tiny_checkpoint: Path) -> Inputs:
    """The same texts by four: tokenised, as raw texts, and as raw texts overlapped."""
    words = " ".join(TEXTS).split()
    texts = [" ".join(words[start : start + 2 + start % 7]) for start in range(24)]
    encoder = text_encoder(tiny_checkpoint, LIMITS)
    return build_inputs(texts, encoder, LIMITS, (4,), (None, FromText.IN_TURN, FromText.OVERLAPPED), tiny_checkpoint)


@WAYS
def test_the_engine_gets_the_very_batches_of_the_tokenised_workload(
    way: Way, mixed: Inputs, tiny_checkpoint: Path
) -> None:
    natural, texts = mixed.workloads[0], mixed.workloads[1].texts
    with FakeRuntime(FakeClock()) as runtime:
        labels = TextRuntime(runtime, text_encoder(tiny_checkpoint, LIMITS), way).run(texts)
        assert len(runtime.batches) == len(natural.batches) == len(labels) == 6
        for got, expected in zip(runtime.batches, natural.batches, strict=True):
            assert got.keys() == set(runtime.info.input_names)
            for name, array in got.items():
                assert array.dtype == np.int64
                np.testing.assert_array_equal(array, expected[name])


@pytest.fixture(scope="module")
def by_hand(mixed: Inputs, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A checkpoint that gives each label to half of the texts, and what transformers' tokenizer and model answer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint).eval()

    @torch.no_grad()
    def logits(text: RawText) -> Any:
        return model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0]

    texts = mixed.workloads[1].texts
    leads = [float(one - other) for one, other in map(logits, chain.from_iterable(texts))]
    model.classifier.bias.data[0] -= median(leads)
    folder = tmp_path_factory.mktemp("even")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, [[int(logits(text).argmax()) for text in batch] for batch in texts]


@WAYS
def test_labels_are_those_of_transformers_and_of_the_tokenised_path(
    way: Way, mixed: Inputs, by_hand: tuple[Path, list[Any]]
) -> None:
    checkpoint, expected = by_hand
    with open_runtime(REFERENCE, checkpoint, 1) as runtime:
        labels = TextRuntime(runtime, text_encoder(checkpoint, LIMITS), way).run(mixed.workloads[1].texts)
        names = runtime.info.input_names
        tokenised: list[Batch] = [{name: batch[name] for name in names} for batch in mixed.workloads[0].batches]
        logits = [runtime.run(batch)["logits"] for batch in tokenised]
    assert [item.tolist() for item in labels] == expected
    assert expected == [item.argmax(axis=1).tolist() for item in logits]
    assert sum(chain.from_iterable(expected)) == len(set(chain.from_iterable(mixed.workloads[1].texts))) / 2 == 12
    assert all(item.dtype == np.int64 for item in labels)
