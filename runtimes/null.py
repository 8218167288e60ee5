"""Computes nothing, keeps the contract: what is measured with it is the harness itself and the check of a batch."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from artifact.precision import Precision
from runtimes.base import Availability, Batch, Executed, OnCpu, Outputs, RuntimeInfo, check_batch
from runtimes.options import NONE, NoOptions

NAME, INPUT_NAMES = "null", ("input_ids",)


def probe() -> Availability:
    """Always available."""
    return Availability(runtime=NAME, available=True, engine_version="1", device="cpu")


class EngineRuntime(OnCpu):
    """Answers every row with two zeros."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: NoOptions = NONE) -> None:
        self._precision, self._threads, self._open = precision, threads, False

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime=NAME,
            engine=NAME,
            engine_version="1",
            device="cpu",
            dtype=self._precision.value,
            threads=self._threads,
            input_names=INPUT_NAMES,
            options={},
        )

    def __enter__(self) -> Self:
        self._open = True
        return self

    def run(self, batch: Batch) -> Outputs:
        if not self._open:
            raise RuntimeError("the runtime is not open; use it in a with block")
        check_batch(batch, INPUT_NAMES)
        return {"logits": np.zeros((len(next(iter(batch.values()))), 2), dtype=np.float32)}

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        return None

    def executed(self, batch: Batch) -> Executed | None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
