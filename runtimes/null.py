"""Computes nothing: what is measured with it is the harness itself."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from artifact.precision import Precision
from runtimes.base import Availability, Batch, Outputs, RuntimeInfo

NAME = "null"


def probe() -> Availability:
    """Always available."""
    return Availability(runtime=NAME, available=True, engine_version="1", device="cpu")


class EngineRuntime:
    """Answers every row with two zeros."""

    def __init__(self, model: Path, precision: Precision, threads: int) -> None:
        self._precision, self._threads = precision, threads

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime=NAME,
            engine=NAME,
            engine_version="1",
            device="cpu",
            dtype=self._precision.value,
            threads=self._threads,
            input_names=("input_ids",),
            options={},
        )

    def __enter__(self) -> Self:
        return self

    def run(self, batch: Batch) -> Outputs:
        return {"logits": np.zeros((len(next(iter(batch.values()))), 2), dtype=np.float32)}

    def peak_device_bytes(self) -> int | None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
