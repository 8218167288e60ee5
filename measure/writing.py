"""What a worker does with a language model: it reads prompts, and writes one token after another."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import padded
from artifact.generate.encoder import Given
from artifact.predict.tokens import batches_by_length
from errors import UserError
from measure.energy import Domain, Meter
from measure.messages import Timed
from measure.timing import Clock, is_level, without_collection
from measure.traffic import Observed, Traffic
from measure.workload import Inputs, Phase, Workload
from runtimes.base import Executed, RuntimeInfo
from runtimes.language import Continuing, LanguageRuntime

JUDGED_TOKENS = 128
"""Tokens of a batch that is judged: each has a score for every word of the vocabulary."""


class Writing:
    """A language model's runtime on its workloads; a `Bench`.

    A sample of reading is the time from an empty cache to the logits of the first new token. A sample of writing is one
    step, from a token to the logits of the next, with the prompt in the cache; choosing the token is not in it. Of an
    encoder-decoder the prompt is what its encoder reads, be it a text or a recording's features, and reading ends with
    the first token it writes.
    """

    def __init__(
        self,
        runtime: LanguageRuntime,
        inputs: Inputs,
        domains: Sequence[Domain],
        clock: Clock = time.perf_counter,
    ) -> None:
        self._runtime, self._inputs, self._domains, self._clock = runtime, inputs, domains, clock

    @property
    def info(self) -> RuntimeInfo:
        return self._runtime.info

    def __enter__(self) -> Self:
        self._runtime.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runtime.__exit__(kind, error, trace)

    def answer_first(self) -> None:
        """One row of the last workload is read."""
        prompt, read = self._inputs.begun(self._inputs.workloads[-1].batches[0]["input_ids"][:1])
        self._runtime.begin(1, len(prompt[0]), read).prompt(prompt)

    def warm_up(self, number: int, limit_s: float) -> Timed:
        workload = self._inputs.workloads[number]
        steps, one_pass = len(workload.spec.shapes), self._pass(workload)
        samples: list[float] = []
        sums: list[float] = []
        while True:
            with without_collection():
                found = one_pass(steps)
            samples += found
            sums.append(sum(found))
            if is_level(sums):
                return Timed(samples_s=tuple(samples), level=True)
            if len(sums) >= 3 and sum(samples) >= limit_s:
                return Timed(samples_s=tuple(samples), level=False)

    def block(self, number: int, passes: int) -> Timed:
        workload = self._inputs.workloads[number]
        steps, one_pass = len(workload.spec.shapes), self._pass(workload)
        primer = one_pass(1)
        with without_collection():
            meter = Meter(self._domains)
            samples = [sample for _ in range(passes) for sample in one_pass(steps)]
            energy_j = meter.joules()
        return Timed(samples_s=tuple(samples), primer_s=primer[0], energy_j=energy_j)

    def _pass(self, workload: Workload) -> Callable[[int], list[float]]:
        """What a pass of so many samples over a workload does; it gives the seconds of each."""
        prompt, read = self._inputs.begun(workload.batches[0]["input_ids"])
        rows, length = len(prompt), len(prompt[0])
        if workload.spec.phase is Phase.READ:
            return lambda samples: [self._read(prompt, read) for _ in range(samples)]
        continuing = self._runtime.begin(rows, length + len(workload.spec.shapes), read)
        first = continuing.prompt(prompt).argmax(axis=-1)
        return lambda samples: self._write(continuing, length, first, samples)

    def _read(self, prompt: Sequence[Sequence[int]], read: Given) -> float:
        start = self._clock()
        self._runtime.begin(len(prompt), len(prompt[0]), read).prompt(prompt)
        return self._clock() - start

    def _write(self, continuing: Continuing, length: int, first: NDArray[np.int64], steps: int) -> list[float]:
        continuing.rewind(length)
        tokens, samples = first, []
        for _ in range(steps):
            start = self._clock()
            logits = continuing.step(tokens)
            samples.append(self._clock() - start)
            tokens = logits.argmax(axis=-1)
        return samples

    def score(self, batch_size: int | None, path: Path) -> float:
        """The first choice for each token of the evaluation texts that is guessed, and how surprised it is of the one
        that comes, in nats: float32 (tokens, 2), text after text."""
        start = self._clock()
        texts, first = self._inputs.told, self._inputs.told_tokens
        found: list[NDArray[np.float32]] = [np.empty((0, 2), dtype=np.float32)] * len(texts)
        for places in batches_by_length([len(text) for text in texts], JUDGED_TOKENS):
            rows = [texts[place] for place in places]
            ids, mask = padded(rows)
            logits = self._runtime.every(ids, mask, self._inputs.read(places))
            for number, (place, row) in enumerate(zip(places, rows, strict=True)):
                found[place] = _told(logits[number, first - 1 : len(row) - 1], np.asarray(row[first:]))
        np.savez(path, answers=np.concatenate(found))
        return self._clock() - start

    def executed(self, number: int) -> Executed | None:
        """Of the first text that is judged."""
        ids, mask = padded(self._inputs.told[:1])
        return self._runtime.executes(ids, mask, self._inputs.read([0]))

    def peak_device_bytes(self) -> int | None:
        return self._runtime.peak_device_bytes()

    def drive(self, traffic: Traffic, folder: Path) -> Observed:
        """Raises `UserError`."""
        raise UserError("load tests are for models that answer in one pass so far", "compare measures language models")


def _told(logits: NDArray[np.float32], following: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of each token the first choice and the surprise, (tokens, 2)."""
    top = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    surprise = total - np.take_along_axis(logits, following[:, None], axis=-1)[:, 0]
    return np.stack([logits.argmax(axis=-1), surprise], axis=-1).astype(np.float32)
