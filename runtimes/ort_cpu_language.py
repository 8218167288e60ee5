"""Decoders on ONNX Runtime's CPU provider."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import Decoder, Decoding
from artifact.generate.encoder import NOTHING, READ, Encoder, Given, encoder_of
from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from runtimes.base import Executed
from runtimes.language import Logits
from runtimes.options import ORT_CPU
from runtimes.ort_cpu import NAME, PROVIDER
from runtimes.ort_model import OrtModel, Target

ANY = 2**31
"""More positions than any cache has: the workloads keep to the model's own context."""


class EngineLanguage(OrtModel):
    """A decoder's graph whose cache is bound in place, and the encoder's beside it, if it has one; a
    `LanguageRuntime`."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_CPU) -> None:
        super().__init__(NAME, Target(provider=PROVIDER, device="cpu"), model, precision, threads, options)
        self._decoder: Decoder | None = None
        self._reader: OrtModel | None = None

    def __enter__(self) -> Self:
        """Load the graphs. Raises `UserError` when it does not load, or is no decoder."""
        super().__enter__()
        reads = any(item.name.startswith(f"{READ}.") for item in self.session.get_inputs())
        if reads:
            other = OrtModel(NAME, self._target, encoder_of(self._model), self._precision, self._threads, self._config)
            self._reader = other.__enter__()
        self._decoder = Decoder(self.session, ANY, Encoder(self._reader.session) if self._reader else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    @property
    def decoder(self) -> Decoder:
        if self._decoder is None:
            raise RuntimeError("the runtime is not open; use it in a with block")
        return self._decoder

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Decoding:
        return self.decoder.begin(rows, capacity, inputs)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        return self.decoder.every(ids, mask, inputs)

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """The decoder's kernels."""
        encoder = Encoder(self._reader.session) if self._reader else None
        return self._profiled(lambda session: Decoder(session, ANY, encoder).every(ids, mask, inputs))
