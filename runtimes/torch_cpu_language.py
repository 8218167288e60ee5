"""Language models in PyTorch on the CPU, as `generate` runs them: with a cache that grows, or compiled with a fixed
one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from transformers import StaticCache

from artifact.generate.encoder import IDS, MASK, NOTHING, Given
from artifact.precision import Precision
from errors import UserError
from runtimes.base import Executed, OnCpu, RuntimeInfo
from runtimes.language import Logits
from runtimes.lending import Pool
from runtimes.options import TORCH_LANGUAGE, TorchLanguageOptions, describe_options
from runtimes.torch_cpu import NAME
from runtimes.torch_model import CONVERT, DTYPES, NOT_OPEN, Operators, compiled, to_host


def _tensors(given: Given, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Ids and masks as they are, and features as the model computes."""
    found = {name: torch.from_numpy(np.asarray(array)) for name, array in given.items()}
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in found.items()}


class Growing:
    """Rows with transformers' own dynamic cache; an encoder reads when they are prompted."""

    def __init__(self, model: Any, inputs: Given) -> None:
        self._model, self._inputs = model, inputs
        self._cache: Any = None
        self._given: dict[str, Any] = {}

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        self._cache = None
        if self._inputs:
            tensors = _tensors(self._inputs, self._model.dtype)
            with torch.inference_mode():
                masked = {MASK: tensors[MASK]} if MASK in tensors else {}
                self._given = {"encoder_outputs": self._model.get_encoder()(**tensors), **masked}
        return self._read(torch.tensor(rows))

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        return self._read(torch.from_numpy(tokens)[:, None])

    def rewind(self, positions: int) -> None:
        cache: Any = self._cache
        if (more := cache.get_seq_length() - positions) > 0:
            cache.crop(-more)

    def _read(self, ids: torch.Tensor) -> Logits:
        given = {"decoder_input_ids": ids, **self._given} if self._given else {IDS: ids, "logits_to_keep": 1}
        with torch.inference_mode():
            found = self._model(**given, past_key_values=self._cache, use_cache=True)
        self._cache = found.past_key_values
        return to_host(found.logits[:, -1])


class Fixed:
    """Rows with transformers' own static cache: prompts are read eagerly, and each step is a compiled graph."""

    def __init__(self, engine: "EngineLanguage", rows: int, capacity: int) -> None:
        self._model, self._step = engine.model, engine.compiled
        self._cache: Any = engine.caches.lend(self, (rows, capacity))

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        self.rewind(0)
        return self._read(self._model, torch.tensor(rows))

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Raises `UserError` where it cannot be compiled."""
        try:
            return self._read(self._step, torch.from_numpy(tokens)[:, None])
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"PyTorch cannot compile a step: {reason}", "leave +compile out; it needs a C++ compiler on the CPU"
            ) from error

    def rewind(self, positions: int) -> None:
        for layer in self._cache.layers:
            layer.cumulative_length.fill_(positions)

    def _read(self, call: Callable[..., Any], ids: torch.Tensor) -> Logits:
        with torch.inference_mode():
            found = call(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return to_host(found.logits[:, -1])


class EngineLanguage(OnCpu):
    """A checkpoint in PyTorch; a `LanguageRuntime`.

    A compiled graph belongs to the memory of one cache, so caches of each size are used again.
    """

    def __init__(
        self, model: Path, precision: Precision, threads: int, options: TorchLanguageOptions = TORCH_LANGUAGE
    ) -> None:
        self._checkpoint, self._precision, self._threads, self._options = model, precision, threads, options
        self._model: Any = None
        self._compiled: Any = None
        self.caches: Pool[tuple[int, int], Any] = Pool(lambda size: StaticCache(self.model.config, size[1]))

    @property
    def model(self) -> Any:
        if self._model is None:
            raise RuntimeError(NOT_OPEN)
        return self._model

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime=NAME,
            engine="torch",
            engine_version=str(torch.__version__),
            device=str(self.model.device),
            dtype=str(self.model.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            input_names=("input_ids",),
            options=describe_options(self._options),
        )

    def __enter__(self) -> Self:
        """Load the checkpoint. Raises `UserError` when it cannot be loaded."""
        from models.checkpoint import load_model

        torch.set_num_threads(self._threads)
        self._model = load_model(self._checkpoint).to(DTYPES[self._precision]).eval()
        if self._options.compile:
            self._check_fixed()
            self._compiled = compiled(self._model, dynamic=False, options={"freezing": True})
        return self

    @property
    def compiled(self) -> Callable[..., Any]:
        """What makes a step, where that is compiled."""
        if self._compiled is None:
            raise RuntimeError(NOT_OPEN)
        found: Callable[..., Any] = self._compiled
        return found

    def _check_fixed(self) -> None:
        """Raise `UserError` for a model whose static cache cannot go back."""
        config = self.model.config
        if config.is_encoder_decoder or any(layer.is_sliding for layer in StaticCache(config, 8).layers):
            raise UserError(
                "compiled steps are for decoders alone so far, and for none that look through a window",
                "leave +compile out",
            )

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Growing | Fixed:
        return Fixed(self, rows, capacity) if self._options.compile else Growing(self.model, inputs)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        prefix = "decoder_" if inputs else ""
        given = _tensors({**inputs, f"{prefix}{IDS}": ids, f"{prefix}{MASK}": mask}, self.model.dtype)
        with torch.inference_mode():
            return to_host(self.model(**given, use_cache=False).logits)

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """The ATen operators that are dispatched, views left out; a compiled graph does not tell."""
        if self._options.compile:
            return None
        with Operators() as seen:
            self.every(ids, mask, inputs)
        return Executed.of(seen.names, sum(name in CONVERT for name in seen.names))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = self._compiled = None
        self.caches.clear()
