"""Language models in PyTorch on an NVIDIA GPU: weights and cache stay there, ids go there and logits come back."""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import IDS, NOTHING, Given
from artifact.precision import Precision
from runtimes.guarded import Guard, Guarded
from runtimes.language import Logits
from runtimes.options import TORCH_LANGUAGE, TorchLanguageOptions
from runtimes.torch_cuda import DEVICE, NAME, ready, table_rows
from runtimes.torch_language import TorchLanguage
from runtimes.torch_model import about


class EngineLanguage(TorchLanguage):
    """A checkpoint in PyTorch on the first GPU; a `LanguageRuntime`. fp32 computes in fp32; only `tf32` lets it use
    TF32."""

    def __init__(
        self, model: Path, precision: Precision, threads: int, options: TorchLanguageOptions = TORCH_LANGUAGE
    ) -> None:
        super().__init__(NAME, DEVICE, model, precision, threads, options)
        self._guard = Guard({}, "PyTorch", about)

    def __enter__(self) -> Self:
        ready(self._precision)
        super().__enter__()
        self._guard = Guard(table_rows(self.model), "PyTorch", about)
        return self

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Guarded:
        with self._guard(inputs or {IDS: np.zeros((rows, capacity), dtype=np.int64)}):
            return Guarded(super().begin(rows, capacity, inputs), self._guard)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        with self._guard(inputs or {IDS: ids}), self._guard({IDS: ids}):
            return super().every(ids, mask, inputs)
