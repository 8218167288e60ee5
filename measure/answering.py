"""What a worker does with a model that answers in one pass."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact.predict.tokens import TextEncoder
from measure.energy import Domain, Meter
from measure.loadgen import drive
from measure.messages import Timed
from measure.pipeline import TextRuntime, in_turn, overlapped
from measure.timing import time_device_passes, time_passes, warm_up
from measure.traffic import Observed, Traffic
from measure.workload import Inputs, tokenizing
from runtimes.base import Batch, Executed, Runtime, RuntimeInfo


class Answering:
    """A runtime on its workloads; a `Bench`."""

    def __init__(self, runtime: Runtime, inputs: Inputs, domains: Sequence[Domain]) -> None:
        self._runtime, self._inputs, self._domains = runtime, inputs, domains
        self._encoder: TextEncoder | None = None

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
        """One row of the last workload."""
        first = self._inputs.workloads[-1].batches[0]
        self._runtime.run({name: first[name][:1] for name in self.info.input_names})

    def warm_up(self, number: int, limit_s: float) -> Timed:
        if texts := self._inputs.workloads[number].texts:
            samples, level = warm_up(self._text_runtime(number), [texts], limit_s)
        else:
            samples, level = warm_up(self._runtime, self._batches(number), limit_s)
        return Timed(samples_s=tuple(samples), level=level)

    def block(self, number: int, passes: int) -> Timed:
        if texts := self._inputs.workloads[number].texts:
            subject = self._text_runtime(number)
            primer = time_passes(subject, [texts], 1)
            samples = time_passes(subject, [texts], passes)
            return Timed(samples_s=tuple(samples), primer_s=primer[0], tokenise_s=tuple(subject.tokenise_s[1:]))
        batches = self._batches(number)
        primer = time_passes(self._runtime, batches[:1], 1)
        meter = Meter(self._domains)
        samples = time_passes(self._runtime, batches, passes)
        energy_j = meter.joules()
        on_device = time_device_passes(self._runtime, batches, passes)
        return Timed(
            samples_s=tuple(samples),
            device_samples_s=tuple(on_device),
            primer_s=primer[0],
            energy_j=energy_j,
        )

    def score(self, batch_size: int | None, path: Path) -> float:
        start = time.perf_counter()
        names = self.info.input_names
        found: dict[int, NDArray[np.float32]] = {}
        for rows in self._inputs.evaluation_rows(batch_size):
            answers = self._inputs.head.one(self._runtime.run(self._inputs.batch(rows, names)))
            found |= {row: self._inputs.decided(row, own) for row, own in zip(rows, answers, strict=True)}
        np.savez(path, answers=np.concatenate([found[row] for row in range(len(found))]))
        return time.perf_counter() - start

    def executed(self, number: int) -> Executed | None:
        return self._runtime.executed(self._batches(number)[0])

    def peak_device_bytes(self) -> int | None:
        return self._runtime.peak_device_bytes()

    def drive(self, traffic: Traffic, folder: Path) -> Observed:
        return drive(self._runtime, self._inputs, traffic, folder)

    def _batches(self, number: int) -> list[Batch]:
        names = self.info.input_names
        return [{name: batch[name] for name in names} for batch in self._inputs.workloads[number].batches]

    def _text_runtime(self, number: int) -> TextRuntime:
        """The open runtime as a workload that starts from texts uses it. The tokenizer is loaded by the first one, so
        that it is no part of the cold start."""
        if self._encoder is None:
            if self._inputs.tokenizer is None:
                raise RuntimeError("texts come with a tokenizer")
            folder = Path(self._inputs.tokenizer.folder)
            self._encoder = tokenizing(folder, self._inputs.text_limits, self._inputs.judged)
        way = overlapped if self._inputs.workloads[number].spec.is_overlapped else in_turn
        return TextRuntime(self._runtime, self._encoder, way, chooses=self._inputs.judged.chooses)
