"""onnxruntime-genai on the CPU: the same decoder graphs, with its own loop around ONNX Runtime."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime
import onnxruntime_genai
from numpy.typing import NDArray

from artifact.genai import GENAI_CONFIG, genai_config, is_for_genai
from artifact.generate.decoder import Decoder
from artifact.generate.encoder import IDS, NOTHING, Given
from artifact.language import LanguageVariant
from artifact.precision import Precision
from artifact.predict.session import SessionConfig, open_session
from artifact.records import read_if_present, write_json
from errors import UserError
from runtimes.base import About, Availability, Executed, OnCpu, RuntimeInfo
from runtimes.language import Logits
from runtimes.options import NONE, NoOptions
from runtimes.ort_cpu import PROVIDER
from runtimes.ort_model import refuse_two_builds

NAME = "ort-genai"
KEYS_AND_VALUES = "onnxruntime-genai runs decoders alone so far whose layers all keep keys and values"
AGREED = 1e-3
"""Of the largest logit: how far its last logits may be from those of ONNX Runtime on the same file."""


def probe() -> Availability:
    """Whether onnxruntime-genai loads beside this ONNX Runtime."""
    try:
        refuse_two_builds()
    except UserError as error:
        return Availability(runtime=NAME, available=False, reason=error.message, remedy=error.hint)
    version = str(onnxruntime_genai.__version__)
    return Availability(runtime=NAME, available=True, engine_version=version, device="cpu")


def about(ids: NDArray[Any]) -> About:
    """Turn what it raises of these ids, many types, into a `UserError`."""
    return About({IDS: ids}, "onnxruntime-genai", (Exception,))


class Generating:
    """Rows that a generator continues."""

    def __init__(self, model: Any, rows: int, capacity: int) -> None:
        self._model, self._rows = model, rows
        self._params = onnxruntime_genai.GeneratorParams(model)
        self._params.set_search_options(do_sample=False, max_length=capacity, batch_size=rows)
        self._generator: Any = None
        self._begun: NDArray[np.int32] = np.zeros((rows, 0), dtype=np.int32)
        self._likeliest: NDArray[np.int64] = np.zeros(rows, dtype=np.int64)

    def prompt(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Raises `ValueError` for rows of unequal length."""
        self._begun = np.array(rows, dtype=np.int32)
        with about(self._begun):
            return self._read()

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Several rows cannot be told their tokens: the likeliest are taken, and logits are set where others are
        asked for."""
        with about(tokens[:, None]):
            if self._rows == 1:
                self._generator.append_tokens(tokens.astype(np.int32)[:, None])
                return self._logits()
            if not np.array_equal(tokens, self._likeliest):
                chosen = self._generator.get_logits()
                chosen[:] = -1
                chosen[np.arange(self._rows), -1, tokens] = 1
                self._generator.set_logits(chosen)
            self._generator.generate_next_token()
            return self._logits()

    def rewind(self, positions: int) -> None:
        """One row goes back; several are read anew, because their generator only goes back to the beginning."""
        if self._rows == 1:
            self._generator.rewind_to(positions)
        else:
            said = [self._generator.get_sequence(row)[:positions] for row in range(self._rows)]
            self._begun = np.array(said, dtype=np.int32)
            self._read()

    def _read(self) -> Logits:
        self._generator = onnxruntime_genai.Generator(self._model, self._params)
        self._generator.append_tokens(self._begun)
        return self._logits()

    def _logits(self) -> Logits:
        found: Logits = self._generator.get_logits()[:, -1]
        self._likeliest = found.argmax(axis=-1)
        return found


class EngineLanguage(OnCpu):
    """A decoder's graph in onnxruntime-genai; a `LanguageRuntime`.

    It hands out the logits of a text's end alone: `every` asks ONNX Runtime on the same file, after both have said the
    same of an end.
    """

    def __init__(self, model: Path, precision: Precision, threads: int, options: NoOptions = NONE) -> None:
        self._path, self._precision, self._threads = model, precision, threads
        self._model: Any = None
        self._decoder: Decoder | None = None

    @property
    def model(self) -> Any:
        """The open `onnxruntime_genai.Model`."""
        if self._model is None:
            raise RuntimeError("the runtime is not open; use it in a with block")
        return self._model

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime=NAME,
            engine="onnxruntime-genai",
            engine_version=str(onnxruntime_genai.__version__),
            device=str(self.model.device_type).lower(),
            dtype=self._precision.value,
            threads=self._threads,
            input_names=("input_ids",),
            options={"onnxruntime": onnxruntime.__version__},
        )

    def __enter__(self) -> Self:
        """Load the graph. Raises `UserError` when it does not load, or is no decoder alone."""
        told = configuration(self._path)
        asked = {"intra_op_num_threads": self._threads}
        with tempfile.TemporaryDirectory(prefix="steelyard-genai-") as name:
            folder = Path(name)
            for file in self._path.parent.iterdir():
                if file.name != GENAI_CONFIG:
                    (folder / file.name).symlink_to(file.resolve())
            write_json(folder / GENAI_CONFIG, told)
            try:
                config = onnxruntime_genai.Config(name)
                config.overlay(json.dumps({"model": {"decoder": {"session_options": asked}}}))
                self._model = onnxruntime_genai.Model(config)
            except Exception as error:  # it raises RuntimeError and its own types, all of them about this file
                reason = str(error).strip().splitlines()[0]
                raise UserError(
                    f"onnxruntime-genai cannot run {self._path}: {reason}", "see: steelyard doctor"
                ) from error
        return self

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> Generating:
        return Generating(self.model, rows, capacity)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Logits:
        """Raises `UserError` where ONNX Runtime says other logits of the first row's end."""
        if self._decoder is None:
            session = open_session(self._path, provider=PROVIDER, threads=self._threads, config=SessionConfig())
            self._decoder = Decoder(session, ids.shape[1])
        found = self._decoder.every(ids, mask)
        row = ids[0, : int(mask[0].sum())]
        said = self.begin(1, len(row)).prompt([row.tolist()])[0]
        if (error := np.abs(said - found[0, len(row) - 1]).max()) > AGREED * np.abs(said).max():
            raise UserError(
                f"onnxruntime-genai's logits of {self._path} differ by {error:.3g} from ONNX Runtime's",
                "report it to onnxruntime-genai, and leave this candidate out",
            )
        return found

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        """It does not tell."""
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = self._decoder = None


def configuration(graph: Path) -> dict[str, Any]:
    """The `genai_config.json` for a graph of a run or an artifact, whose texts end at the last of all tokens: one has
    to be named, and that is hardly ever the likeliest.

    Raises `UserError` for a graph that is no decoder alone, or one whose layers keep states.
    """
    packed = graph.with_name(GENAI_CONFIG)
    if packed.is_file():
        found: dict[str, Any] = json.loads(packed.read_text())
        last = int(found["model"]["vocab_size"]) - 1
        return {**found, "model": {**found["model"], "eos_token_id": last, "pad_token_id": last}}
    variant = read_if_present(graph.with_name("variant.json"), LanguageVariant)
    if variant is None or not is_for_genai(variant):
        raise UserError(f"{graph} cannot run: {KEYS_AND_VALUES}", "leave this candidate out")
    return genai_config({}, variant.cache, variant.sizes, graph.name, [variant.sizes.vocabulary - 1])
