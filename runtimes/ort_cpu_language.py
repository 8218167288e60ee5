"""Decoders on ONNX Runtime's CPU provider."""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import Decoder, Decoding
from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from runtimes.language import Logits
from runtimes.options import ORT_CPU
from runtimes.ort_cpu import NAME, PROVIDER
from runtimes.ort_model import OrtModel, Target

ANY = 2**31
"""More positions than any cache has: the workloads keep to the model's own context."""


class EngineLanguage(OrtModel):
    """A decoder's graph whose cache is bound in place; a `LanguageRuntime`."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_CPU) -> None:
        super().__init__(NAME, Target(provider=PROVIDER, device="cpu"), model, precision, threads, options)
        self._decoder: Decoder | None = None

    def __enter__(self) -> Self:
        """Load the graph. Raises `UserError` when it does not load, or is no decoder."""
        super().__enter__()
        self._decoder = Decoder(self.session, ANY)
        return self

    @property
    def decoder(self) -> Decoder:
        if self._decoder is None:
            raise RuntimeError("the runtime is not open; use it in a with block")
        return self._decoder

    def begin(self, rows: int, capacity: int) -> Decoding:
        return self.decoder.begin(rows, capacity)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
        return self.decoder.every(ids, mask)
