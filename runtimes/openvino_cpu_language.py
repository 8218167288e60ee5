"""Language models on OpenVINO's CPU plugin, which keeps the cache itself."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.properties import hint

from artifact.generate.decoder import LOGITS, POSITIONS
from artifact.generate.encoder import IDS, MASK, NOTHING, READ, READ_MASK, Given, encoder_of
from artifact.precision import Precision
from errors import UserError
from runtimes.base import Executed, OnCpu, RuntimeInfo, check_indices
from runtimes.language import Logits
from runtimes.lending import Pool
from runtimes.openvino_cache import keep_cache
from runtimes.openvino_model import BF16, F32, OpenVinoModel, table_rows
from runtimes.options import OPENVINO_LANGUAGE, OpenVinoLanguageOptions

LAST = np.array([[-1]], dtype=np.int64)
FEW = 8
"""Tokens that are read at once where the cache rounds."""

CACHES = {"f16": openvino.Type.f16, "u8": openvino.Type.u8}


class _Graph(OpenVinoModel):
    """A graph and the requests that run it, each of which serves one caller at a time."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: OpenVinoLanguageOptions) -> None:
        bf16 = options.bf16 or precision is Precision.BF16
        super().__init__(model, precision, threads, options, options.hint, bf16=bf16)
        self.is_exact = options.cache_precision == "same"
        own = BF16 if bf16 else F32
        self._asked[hint.kv_cache_precision()] = CACHES.get(options.cache_precision, own)
        self.requests: Pool[None, Any] = Pool(lambda _: self.compiled.create_infer_request())

    def _taken(self, read: Any) -> dict[str, str]:
        return {
            **super()._taken(read),
            "kv_cache_precision": read(hint.kv_cache_precision()).get_type_name(),
            "dynamic_quantization_group_size": str(read(hint.dynamic_quantization_group_size())),
        }

    def compile(self) -> None:
        super().compile()
        self.requests.clear()
        self._places = table_rows(self._graph)

    def infer(self, request: Any, inputs: Given) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises `UserError` for what the engine cannot run."""
        check_indices({name: array for name, array in inputs.items() if name == IDS}, self._places, "OpenVINO")
        try:
            found = request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except Exception as error:  # openvino raises RuntimeError and its own types, all of them about these inputs
            self.compile()  # a batch that failed leaves shapes behind, and the next would fail too
            reason = str(error).strip().splitlines()[-1]
            shape = next(iter(inputs.values())).shape
            raise UserError(f"OpenVINO cannot run a batch of shape {shape}: {reason}") from error
        return {output.get_any_name(): array for output, array in found.items()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.requests.clear()
        super().__exit__(kind, error, trace)


class _Decoder(_Graph):
    """A graph that keeps its cache."""

    def _prepared(self, graph: Any) -> Any:
        keep_cache(graph)
        return graph


class Stateful:
    """Rows whose cache a request keeps."""

    def __init__(self, decoder: _Decoder, read: Given) -> None:
        self._decoder, self._read = decoder, read
        self._request = decoder.requests.lend(self, None)
        self._mask = np.zeros((0, 0), dtype=np.int64)

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Raises `ValueError` for rows of unequal length."""
        self._request.reset_state()
        ids = np.array(rows, dtype=np.int64)
        self._mask = np.ones((len(ids), 0), dtype=np.int64)
        return self._run(ids)

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        return self._run(np.asarray(tokens, dtype=np.int64)[:, None])

    def rewind(self, positions: int) -> None:
        self._mask = self._mask[:, :positions]
        for state in self._request.query_state():
            state.state = openvino.Tensor(np.ascontiguousarray(state.state.data[:, :, :positions]))

    def _run(self, ids: NDArray[np.int64]) -> Logits:
        self._mask = np.concatenate([self._mask, np.ones_like(ids)], axis=1)
        given = {**self._read, IDS: ids, MASK: self._mask, POSITIONS: LAST}
        logits: Logits = self._decoder.infer(self._request, given)[LOGITS][:, -1]
        return logits


class EngineLanguage(OnCpu):
    """A decoder's graph on OpenVINO, and the encoder's beside it, if it has one; a `LanguageRuntime`.

    The cache has the number type that is computed in, or the one that `options` name.
    """

    def __init__(
        self, model: Path, precision: Precision, threads: int, options: OpenVinoLanguageOptions = OPENVINO_LANGUAGE
    ) -> None:
        self._decoder = _Decoder(model, precision, threads, options)
        self._encoder = _Graph(encoder_of(model), precision, threads, options)
        self._reads = False

    @property
    def info(self) -> RuntimeInfo:
        return self._decoder.info

    def __enter__(self) -> Self:
        """Compile the graphs. Raises `UserError` when one does not load, or is no decoder."""
        self._decoder.__enter__()
        self._reads = any(name.startswith(f"{READ}.") for name in self._decoder.info.input_names)
        if self._reads:
            self._encoder.__enter__()
        return self

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Stateful:
        return Stateful(self._decoder, self._read(inputs))

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        """With a cache that rounds, a few tokens at a time: in a single pass nothing would be read back from it."""
        read, found = self._read(inputs), []
        at_once = ids.shape[1] if self._decoder.is_exact else FEW
        with self._decoder.requests.borrowed(None) as request:
            request.reset_state()
            for start in range(0, ids.shape[1], at_once):
                now = ids[:, start : start + at_once]
                wanted = np.arange(now.shape[1], dtype=np.int64)[None]
                given = {**read, IDS: now, MASK: mask[:, : start + now.shape[1]], POSITIONS: wanted}
                found.append(self._decoder.infer(request, given)[LOGITS])
        return np.concatenate(found, axis=1)

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """The decoder's kernels."""
        self.every(ids, mask, inputs)
        return self._decoder.kernels()

    def _read(self, inputs: Given) -> Given:
        """What the decoder attends to of what the encoder reads, where there is one."""
        if not self._reads:
            return NOTHING
        with self._encoder.requests.borrowed(None) as request:
            masked = {READ_MASK: np.asarray(inputs[MASK])} if MASK in inputs else {}
            return {**self._encoder.infer(request, inputs), **masked}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encoder.__exit__(kind, error, trace)
        self._decoder.__exit__(kind, error, trace)
