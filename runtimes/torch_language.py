"""What the PyTorch engines of language models share: models run as `generate` runs them, with a cache that grows, or
compiled with a fixed one."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from inspect import signature
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
from runtimes.base import Executed, RuntimeInfo
from runtimes.language import Continuing, Logits
from runtimes.lending import Pool
from runtimes.options import TorchLanguageOptions, describe_options
from runtimes.torch_model import CONVERT, DTYPES, NOT_OPEN, Operators, compiled, forget, peak_bytes, to_host

CACHES = "past_key_values", "cache_params"
"""What transformers calls a cache."""


def _tensors(given: Given, model: Any) -> dict[str, torch.Tensor]:
    """On the model's device: ids and masks as they are, and features as the model computes."""
    found = {name: torch.from_numpy(np.asarray(array)).to(model.device) for name, array in given.items()}
    return {name: tensor.to(model.dtype) if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def _ids(rows: Sequence[Sequence[int]] | NDArray[np.int64], model: Any) -> torch.Tensor:
    """The same of rows of ids."""
    return torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(model.device)


class Growing:
    """Rows with transformers' own dynamic cache; an encoder reads when they are prompted."""

    def __init__(self, model: Any, inputs: Given) -> None:
        self._model, self._inputs = model, inputs
        self._name = next((name for name in CACHES if name in signature(model.forward).parameters), CACHES[0])
        self._cache: Any = None
        self._begun: tuple[int, Any] | None = None
        self._given: dict[str, Any] = {}

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        self._cache = None
        if self._inputs:
            tensors = _tensors(self._inputs, self._model)
            with torch.inference_mode():
                masked = {MASK: tensors[MASK]} if MASK in tensors else {}
                self._given = {"encoder_outputs": self._model.get_encoder()(**tensors), **masked}
        found = self._read(_ids(rows, self._model))
        self._begun = (len(rows[0]), deepcopy(self._cache)) if any(self._cache.is_linear) else None
        return found

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        return self._read(_ids(tokens[:, None], self._model))

    def rewind(self, positions: int) -> None:
        """Raises `ValueError` where layers keep states, which only go back to the prompt's."""
        cache: Any = self._cache
        if self._begun is not None:
            begun, left = self._begun
            if positions != begun:
                raise ValueError(f"the states go back to the prompt's {begun} positions, not to {positions}")
            self._cache = deepcopy(left)
        elif (more := cache.get_seq_length() - positions) > 0:
            cache.crop(-more)

    def _read(self, ids: torch.Tensor) -> Logits:
        given = {"decoder_input_ids": ids, **self._given} if self._given else {IDS: ids, "logits_to_keep": 1}
        with torch.inference_mode():
            found = self._model(**given, **{self._name: self._cache}, use_cache=True)
        self._cache = found[self._name]
        return to_host(found.logits[:, -1])


class Fixed:
    """Rows with transformers' own static cache: prompts are read eagerly, and each step is a compiled graph."""

    def __init__(self, engine: "TorchLanguage", rows: int, capacity: int) -> None:
        self._model, self._step = engine.model, engine.compiled
        self._cache: Any = engine.caches.lend(self, (rows, capacity))

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        self.rewind(0)
        return self._read(self._model, _ids(rows, self._model))

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Raises `UserError` where it cannot be compiled."""
        try:
            return self._read(self._step, _ids(tokens[:, None], self._model))
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"PyTorch cannot compile a step: {reason}",
                "leave +compile out; it needs a C++ compiler on the CPU and Triton on a GPU",
            ) from error

    def rewind(self, positions: int) -> None:
        for layer in self._cache.layers:
            layer.cumulative_length.fill_(positions)

    def _read(self, call: Callable[..., Any], ids: torch.Tensor) -> Logits:
        with torch.inference_mode():
            found = call(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return to_host(found.logits[:, -1])


class TorchLanguage:
    """A checkpoint in PyTorch on one device, its weights cast once; a `LanguageRuntime`.

    A compiled graph belongs to the memory of one cache, so caches of each size are used again.
    """

    def __init__(
        self,
        name: str,
        device: str,
        model: Path,
        precision: Precision,
        threads: int,
        options: TorchLanguageOptions,
    ) -> None:
        self._name, self._device = name, torch.device(device)
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
            runtime=self._name,
            engine="torch",
            engine_version=str(torch.__version__),
            device=str(self.model.device),
            dtype=str(self.model.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            input_names=("input_ids",),
            options={
                **describe_options(self._options),
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
            },
        )

    def __enter__(self) -> Self:
        """Load the checkpoint. Raises `UserError` when it cannot be loaded, or stays on another device."""
        from models.checkpoint import load_model

        torch.set_num_threads(self._threads)
        dtype = DTYPES[self._precision]
        model = load_model(self._checkpoint).to(device=self._device, dtype=dtype).eval()
        parameter = next(model.parameters())
        if parameter.dtype != dtype or parameter.device.type != self._device.type:
            raise UserError(f"asked for {dtype} on {self._device}, got {parameter.dtype} on {parameter.device}")
        self._model = model
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
        cache: Any = None if config.is_encoder_decoder else StaticCache(config, 8)
        if cache is None or any(cache.is_sliding) or any(cache.is_linear):
            raise UserError(
                "compiled steps are for decoders alone so far, and for none that look through a window or keep states",
                "leave +compile out",
            )

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Continuing:
        return Fixed(self, rows, capacity) if self._options.compile else Growing(self.model, inputs)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        prefix = "decoder_" if inputs else ""
        given = _tensors({**inputs, f"{prefix}{IDS}": ids, f"{prefix}{MASK}": mask}, self.model)
        with torch.inference_mode():
            return to_host(self.model(**given, use_cache=False).logits)

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """The ATen operators that are dispatched, views left out; a compiled graph does not tell."""
        if self._options.compile:
            return None
        with Operators() as seen:
            self.every(ids, mask, inputs)
        return Executed.of(seen.names, sum(name in CONVERT for name in seen.names))

    def peak_device_bytes(self) -> int | None:
        return peak_bytes(self._device)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = self._compiled = None
        self.caches.clear()
        forget(self._device)
