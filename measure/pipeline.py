"""From raw texts to answers: one stage after the other, or the next texts tokenised while the engine computes."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from numpy.typing import NDArray

from artifact.predict.tokens import TextEncoder, TextItem
from runtimes.base import Batch, Runtime

Item = TypeVar("Item")
Encoded = TypeVar("Encoded")
Result = TypeVar("Result")
Answers = NDArray[Any]
Way = Callable[
    [Callable[[Sequence[TextItem]], Batch], Callable[[Batch], Answers], Iterable[Sequence[TextItem]]],
    Iterator[Answers],
]
"""`in_turn` or `overlapped`: how batches of texts go through `encode` and `run`."""

LOOK_AHEAD = 2
"""Items that are encoded at most, or being encoded, while another is run."""


def in_turn(
    encode: Callable[[Item], Encoded], run: Callable[[Encoded], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """The results in the order of `items`, each encoded and then run in the caller's thread."""
    return (run(encode(item)) for item in items)


def overlapped(
    encode: Callable[[Item], Encoded], run: Callable[[Encoded], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """The results in the order of `items`; while one is run, a thread encodes the next, at most `LOOK_AHEAD` of them.

    An exception of `encode` or `run` surfaces as itself, after the results of the items before. The thread is gone when
    the iterator ends, fails or is closed.
    """
    waiting = iter(items)
    thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
    try:
        ahead = deque(thread.submit(encode, item) for item in islice(waiting, LOOK_AHEAD))
        while ahead:
            encoded = ahead.popleft().result()
            ahead.extend(thread.submit(encode, item) for item in islice(waiting, 1))
            yield run(encoded)
    finally:
        thread.shutdown(cancel_futures=True)


class TextRuntime:
    """An open runtime that starts from raw texts and ends with labels, where it `chooses`, or with what it gives first.

    `tokenise_s` has the seconds that each finished `run` spent tokenising and padding. Where that is `overlapped`, the
    engine computes meanwhile.
    """

    def __init__(
        self,
        runtime: Runtime,
        encoder: TextEncoder,
        way: Way,
        clock: Callable[[], float] = time.perf_counter,
        *,
        chooses: bool = True,
    ) -> None:
        self._runtime, self._encoder, self._way, self._clock = runtime, encoder, way, clock
        self._names, self._chooses = runtime.info.input_names, chooses
        self.tokenise_s: list[float] = []

    def run(self, texts: Sequence[Sequence[TextItem]]) -> list[Answers]:
        """Numbers of the best labels, int64 (rows,), for each batch of texts, or its first output.

        Raises what the tokenizer and the runtime raise.
        """
        spent: list[float] = []

        def encode(batch: Sequence[TextItem]) -> Batch:
            start = self._clock()
            padded = self._encoder.pad(self._encoder.encode(batch), self._names)
            spent.append(self._clock() - start)
            return padded

        answers = list(self._way(encode, self._answer, texts))
        self.tokenise_s.append(sum(spent))
        return answers

    def _answer(self, batch: Batch) -> Answers:
        first = next(iter(self._runtime.run(batch).values()))
        return first.argmax(axis=-1) if self._chooses else first
