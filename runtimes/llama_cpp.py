"""llama.cpp on the CPU, through llama-cpp-python's bindings: GGUF files that an export made of the same weights."""

import ctypes
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import NOTHING, Given
from artifact.precision import Precision
from errors import UserError
from runtimes.base import Availability, Executed, OnCpu, RuntimeInfo
from runtimes.language import Logits
from runtimes.lending import Pool
from runtimes.options import LLAMA_CPP, LlamaCppOptions, describe_options

NAME = "llama-cpp"
CACHES = {"f32": llama_cpp.GGML_TYPE_F32, "f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}


SILENT = llama_cpp.llama_log_callback(lambda *_: None)
"""What llama.cpp tells when nobody listens; it would write to the terminal."""

ERROR = 4
"""GGML_LOG_LEVEL_ERROR of ggml.h, which the bindings do not name."""


def probe() -> Availability:
    """llama.cpp has a backend for CPUs wherever it loads."""
    return Availability(runtime=NAME, available=True, engine_version=version("llama_cpp_python"), device="cpu")


class Sequences:
    """Rows that a context continues, a sequence each."""

    def __init__(self, engine: "EngineLanguage", rows: int, capacity: int) -> None:
        self._engine, self._rows = engine, rows
        self._context = engine.contexts.lend(self, (rows, capacity))
        self._positions = 0

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Raises `ValueError` for rows of unequal length."""
        self.rewind(0)
        return self._read(np.array(rows))

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        return self._read(tokens[:, None])

    def rewind(self, positions: int) -> None:
        self._engine.forget(self._context, self._rows, positions)
        self._positions = positions

    def _read(self, ids: NDArray[np.int64]) -> Logits:
        asked = np.zeros(ids.shape, dtype=bool)
        asked[:, -1] = True
        found = self._engine.decode(self._context, ids, np.ones_like(asked), asked, self._positions)
        self._positions += ids.shape[1]
        return found


class EngineLanguage(OnCpu):
    """A GGUF file in llama.cpp; a `LanguageRuntime`.

    A context, which holds a cache for so many rows and positions, is made once and serves again.
    """

    def __init__(self, model: Path, precision: Precision, threads: int, options: LlamaCppOptions = LLAMA_CPP) -> None:
        self._path, self._precision, self._threads, self._options = model, precision, threads, options
        self._model: Any = None
        self._reason = ""
        self._log = llama_cpp.llama_log_callback(self._hear)
        self.contexts: Pool[tuple[int, int], Any] = Pool(lambda size: self._context(*size))

    @property
    def model(self) -> Any:
        """The open `llama_model`."""
        self._check_open()
        return self._model

    def _check_open(self) -> None:
        """Contexts are freed with the model: whoever still has one must not use it."""
        if self._model is None:
            raise RuntimeError("the runtime is not open; use it in a with block")

    @property
    def info(self) -> RuntimeInfo:
        described = ctypes.create_string_buffer(128)
        llama_cpp.llama_model_desc(self.model, described, len(described))
        return RuntimeInfo(
            runtime=NAME,
            engine="llama.cpp",
            engine_version=f"llama-cpp-python {version('llama_cpp_python')}",
            device="cpu",
            dtype=self._precision.value,
            threads=self._threads,
            input_names=("input_ids",),
            options={
                **describe_options(self._options),
                "model": described.value.decode(),
                "built_for": llama_cpp.llama_print_system_info().decode().strip(),
            },
        )

    def __enter__(self) -> Self:
        """Load the file. Raises `UserError` when it does not load."""
        llama_cpp.llama_log_set(self._log, None)
        llama_cpp.llama_backend_init()
        asked = llama_cpp.llama_model_default_params()
        asked.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(self._path).encode(), asked)
        if self._model is None:
            llama_cpp.llama_log_set(SILENT, None)
            raise UserError(f"llama.cpp cannot load {self._path}: {self._reason}", "export it again with --gguf")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        return self

    def _hear(self, level: int, text: bytes, data: object) -> None:
        """Keep the last error; the rest is hundreds of lines."""
        if level == ERROR:
            self._reason = text.decode(errors="replace").strip()

    def _context(self, rows: int, capacity: int) -> Any:
        """One for so many rows and positions each. Raises `UserError` where that cannot be had as it was asked for."""
        asked = llama_cpp.llama_context_default_params()
        asked.n_ctx = asked.n_batch = rows * capacity
        asked.n_seq_max = rows
        asked.n_threads = asked.n_threads_batch = self._threads
        asked.type_k = asked.type_v = CACHES[self._options.cache_precision]
        asked.no_perf = True
        asked.offload_kqv = asked.op_offload = False
        context = llama_cpp.llama_init_from_model(self.model, asked)
        if context is None:
            raise UserError(
                f"llama.cpp makes no context of {rows} × {capacity} tokens with a cache in "
                f"{self._options.cache_precision}: {self._reason}",
                "ask for fewer tokens, or for another +cache-precision: q8_0 takes heads of whole blocks of 32",
            )
        if (got := llama_cpp.llama_n_threads(context)) != self._threads:
            llama_cpp.llama_free(context)
            raise UserError(f"asked llama.cpp for {self._threads} threads, got {got}", "see: steelyard doctor")
        return context

    def forget(self, context: Any, rows: int, positions: int) -> None:
        """Keep only the first so many positions of each row."""
        self._check_open()
        memory = llama_cpp.llama_get_memory(context)
        for row in range(rows):
            llama_cpp.llama_memory_seq_rm(memory, row, positions, -1)

    def decode(
        self, context: Any, ids: NDArray[np.int64], told: NDArray[np.bool_], asked: NDArray[np.bool_], start: int
    ) -> Logits:
        """Read the tokens that are `told`, those of each row from position `start` on; logits of those that are
        `asked` for, float32 (asked, vocabulary). Raises `UserError` for what llama.cpp does not read."""
        self._check_open()
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise UserError(
                f"llama.cpp cannot run a batch of shape {ids.shape}: it has numbers outside 0 to "
                f"{self._vocabulary - 1}",
                "tokenise with the checkpoint's own tokenizer",
            )
        rows, columns = np.nonzero(told)
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        try:
            batch.n_tokens = len(rows)
            wanted = asked[rows, columns]
            for place, (row, column, token, want) in enumerate(
                zip(rows.tolist(), columns.tolist(), ids[rows, columns].tolist(), wanted.tolist(), strict=True)
            ):
                batch.token[place], batch.pos[place] = token, start + column
                batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, row, want
            if failed := llama_cpp.llama_decode(context, batch):
                raise UserError(f"llama.cpp cannot run a batch of shape {ids.shape}: it returns {failed}")
            found = [
                np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, place), (self._vocabulary,))
                for place in np.flatnonzero(wanted).tolist()
            ]
            return np.stack(found)
        finally:
            llama_cpp.llama_batch_free(batch)

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Sequences:
        return Sequences(self, rows, capacity)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        """In a context of its own, which is freed: texts have many shapes."""
        told = mask.astype(bool)
        found = np.zeros((*ids.shape, self._vocabulary), dtype=np.float32)
        context = self._context(*ids.shape)
        try:
            found[told] = self.decode(context, ids, told, told, 0)
        finally:
            llama_cpp.llama_free(context)
        return found

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """It does not tell."""
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for context in self.contexts.made:
            llama_cpp.llama_free(context)
        self.contexts.clear()
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
        self._model = None
        llama_cpp.llama_log_set(SILENT, None)  # ours goes with this object
