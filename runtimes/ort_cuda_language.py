"""Language models on ONNX Runtime's CUDA provider: the cache stays on the GPU, ids go there and logits come back."""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import IDS, NOTHING, Given, encoder_of
from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from errors import UserError
from runtimes.guarded import Guard, Guarded
from runtimes.language import Logits
from runtimes.options import ORT_CUDA_LANGUAGE, OrtCudaOptions
from runtimes.ort_cuda import EngineRuntime
from runtimes.ort_gpu import CUDA, HERE
from runtimes.ort_language import OrtLanguage
from runtimes.ort_model import OrtModel, about
from runtimes.tables import table_rows

ATTENTION = "GroupQueryAttention"
"""The operator that reads and writes the cache."""


class EngineLanguage(OrtLanguage):
    """Exported graphs as they are; a `LanguageRuntime`.

    A graph whose attention was placed on the host is refused: its whole cache would be copied at every token. ONNX
    Runtime has CUDA kernels of it for fp16 and bf16 alone (its `docs/OperatorKernels.md`), so graphs that compute in
    fp32, whatever bits their weights have, are refused until it has others.
    """

    def __init__(
        self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_CUDA_LANGUAGE
    ) -> None:
        chosen = OrtCudaOptions(**dataclasses.asdict(options))
        super().__init__(lambda graph: EngineRuntime(graph, precision, threads, chosen), model, HERE)
        self._guard = self._reading_guard = Guard({}, "onnxruntime", about)

    def _check(self, writer: OrtModel) -> None:
        super()._check(writer)
        if elsewhere := writer.providers_of(ATTENTION) - {CUDA}:
            raise UserError(
                f"onnxruntime placed {ATTENTION} of {self._model} on {', '.join(sorted(elsewhere))}: its cache would "
                "be copied to the host and back at every token",
                "measure fp16 or bf16, for which it has CUDA kernels",
            )
        self._guard = Guard(table_rows(self._model), "onnxruntime", about)
        if self._encoder is not None:
            self._reading_guard = Guard(table_rows(encoder_of(self._model)), "onnxruntime", about)

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Guarded:
        with self._reading_guard(inputs or {IDS: np.zeros((rows, capacity), dtype=np.int64)}):
            return Guarded(super().begin(rows, capacity, inputs), self._guard)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        with self._reading_guard(inputs or {IDS: ids}), self._guard({IDS: ids}):
            return super().every(ids, mask, inputs)
