"""What the ONNX Runtime engines of language models share: decoders whose cache stays on one device."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import Decoder
from artifact.generate.encoder import HOST, NOTHING, READ, Encoder, Given, encoder_of
from runtimes.base import Executed, RuntimeInfo
from runtimes.language import Continuing, Logits
from runtimes.ort_model import OrtModel

ANY = 2**31
"""More positions than any cache has: the workloads keep to the model's own context."""

NOT_OPEN = "the runtime is not open; use it in a with block"


class OrtLanguage:
    """A decoder's graph whose cache is bound in place, and the encoder's beside it, if it has one; a
    `LanguageRuntime`. `graph` makes a session for a file, and `at` is the device that the cache is kept on."""

    def __init__(self, graph: Callable[[Path], OrtModel], model: Path, at: str = HOST) -> None:
        self._graph, self._model, self._at = graph, model, at
        self._opened = ExitStack()
        self._writer: OrtModel | None = None
        self._encoder: Encoder | None = None

    def __enter__(self) -> Self:
        """Load the graphs. Raises `UserError` when one does not load, or is no decoder."""
        with ExitStack() as opened:
            writer = opened.enter_context(self._graph(self._model))
            if any(item.name.startswith(f"{READ}.") for item in writer.session.get_inputs()):
                reader = opened.enter_context(self._graph(encoder_of(self._model)))
                self._encoder = Encoder(reader.session, self._at)
            self._check(writer)
            self._writer, self._opened = writer, opened.pop_all()
        return self

    def _check(self, writer: OrtModel) -> None:
        """Refuse a graph that cannot be continued here."""
        Decoder(writer.session, ANY)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer = self._encoder = None
        self._opened.close()

    @property
    def writer(self) -> OrtModel:
        """The decoder's open graph."""
        if self._writer is None:
            raise RuntimeError(NOT_OPEN)
        return self._writer

    @property
    def info(self) -> RuntimeInfo:
        return self.writer.info

    @property
    def decoder(self) -> Decoder:
        return self._decoder_on(self.writer.session)

    def _decoder_on(self, session: object) -> Decoder:
        return Decoder(session, ANY, self._encoder, self._at)

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Continuing:
        return self.decoder.begin(rows, capacity, inputs)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        return self.decoder.every(ids, mask, inputs)

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """The decoder's kernels."""
        return self.writer.profiled(lambda session: self._decoder_on(session).every(ids, mask, inputs))

    def peak_device_bytes(self) -> int | None:
        return self.writer.peak_device_bytes()
