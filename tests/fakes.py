"""A clock that moves only when told, a `Runtime` whose calls take scripted seconds on it, and a fake engine.

The engine is registered as `fake`; its models are text files that hold one word, which says how it behaves.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Availability, Batch, Executed, Outputs, RuntimeInfo, check_batch
from runtimes.options import NONE, NoOptions
from runtimes.registry import Entry, Source

INPUT_NAMES = ("input_ids", "attention_mask")
FAKE = Entry(
    "tests.fakes", "numpy", "cpu", Source.ONNX, (Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC), portable=True
)


class FakeClock:
    """Stands still but for `advance`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds_s: float) -> None:
        self.now_s += seconds_s


class FakeRuntime:
    """Each run advances the clock by the next of `durations_s`, the last one for ever.

    A row's logits are the sum of its ids and their number, padding left out, so that answers tell which row they are.
    With `device_durations_s` it has a device with a clock of its own, to which copying a batch takes `copy_s`.
    """

    def __init__(
        self,
        clock: FakeClock,
        durations_s: Sequence[float] = (0.0,),
        threads: int = 1,
        device_durations_s: Sequence[float] = (),
        copy_s: float = 0.0,
    ) -> None:
        self._clock, self._threads, self._open = clock, threads, False
        self._durations = chain(durations_s, repeat(durations_s[-1]))
        self._has_device, self._copy_s = bool(device_durations_s), copy_s
        self._device_durations = chain(device_durations_s, repeat((0.0, *device_durations_s)[-1]))
        self.batches: list[Batch] = []
        self.computed: list[Batch] = []

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime="fake",
            engine="fake",
            engine_version="1",
            device="cpu",
            dtype="fp32",
            threads=self._threads,
            input_names=INPUT_NAMES,
            options={},
        )

    def __enter__(self) -> Self:
        self._open = True
        return self

    def run(self, batch: Batch) -> Outputs:
        if not self._open:
            raise RuntimeError("the runtime is not open")
        check_batch(batch, INPUT_NAMES)
        self.batches.append(batch)
        self._clock.advance(next(self._durations))
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return {"logits": np.stack([(ids * mask).sum(1), mask.sum(1)], axis=1).astype(np.float32)}

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        if not self._has_device:
            return None
        check_batch(batch, INPUT_NAMES)
        self._clock.advance(self._copy_s)

        def compute() -> None:
            self.computed.append(batch)
            self._clock.advance(next(self._device_durations))

        return compute

    def executed(self, batch: Batch) -> Executed | None:
        return Executed.of(("sum", "sum"), 0)

    def peak_device_bytes(self) -> int | None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False


def probe() -> Availability:
    return Availability(runtime="fake", available=True, engine_version="1", device="cpu")


class EngineRuntime(FakeRuntime):
    """Behaves as its model file says: `good`, `refuses`, `dies`, `dies-later`, `breaks`, `hoards`, `nan`, `hangs` or
    `prints`; `device` is good and has a device. `dies-under-load`, `breaks-under-load`, `hangs-under-load` and
    `nan-under-load` are good until LoadGen is loaded."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: NoOptions = NONE) -> None:
        super().__init__(FakeClock(), threads=threads)
        self._model = model
        self._word = ""

    def __enter__(self) -> Self:
        self._word = self._model.read_text()
        self._has_device = self._word == "device"
        if self._word == "refuses":
            raise UserError("the fake refuses", "ask another")
        return super().__enter__()

    def run(self, batch: Batch) -> Outputs:
        word = self._word.removesuffix("-under-load") if "mlperf_loadgen" in sys.modules else self._word
        if word == "dies" or (word == "dies-later" and len(self.batches) == 10):
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "breaks":
            raise ZeroDivisionError("the fake broke")
        if word == "hoards":
            np.empty(2**62, dtype=np.int8)
        if word == "hangs":
            time.sleep(600)
        if word == "prints":
            print('{"type":"Scored","seconds_s":1}', flush=True)  # noqa: T201  what a noisy library would do
            os.write(1, b"garbage without an end")
        outputs = super().run(batch)
        return {name: values * np.float32("nan") for name, values in outputs.items()} if word == "nan" else outputs
