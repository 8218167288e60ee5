"""A packed model, loaded: checked first, then asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predict.answers import Answerer, Asked, Classifier, Embedder, Head, MaskFiller, Result, Tagger
from artifact.predict.cores import usable_cores
from artifact.predict.folder import MANIFEST, check_files, inside
from artifact.predict.golden import Golden, GoldenExample, compare_inputs, read_golden
from artifact.predict.graph_file import check_graph
from artifact.predict.manifest import Manifest, read_manifest
from artifact.predict.readers import ArrayReader, Reader, Row, TextReader
from artifact.predict.session import SERVES, open_session
from artifact.predict.tokens import BATCH_TOKENS, TextEncoder
from artifact.predict.typed import read_json
from artifact.task import ANSWERS, Task
from errors import GateFailed, UserError

MOST_CONFIG_BYTES = 16 * 2**20
MOST_TOKENIZER_BYTES = 128 * 2**20
MANY_BATCHES = 8
"""Batches for each thread from which on every thread computes batches of its own; the model is loaded anew for that."""

MASKED_TOKENS = 256
"""Tokens of a batch where each has a score for every word of the vocabulary: 30 MB for BERT's, 250 MB for XLM-R's."""

WINDOW_OVERLAP = 128
"""Tokens that two windows of a long context share, as in BERT's own evaluation on SQuAD."""


class Predictor:
    """A packed model, loaded. One instance may be shared by threads."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        """Load what was checked; `open` checks."""
        self.folder = folder
        self.manifest = manifest
        self.labels = manifest.labels
        self._names = manifest.outputs
        self.threads = threads
        self.encoder = _encoder(folder, manifest)
        self._reader = _reader(manifest, self.encoder)
        self._head = _head(manifest, self.encoder)
        self._per_token = ANSWERS[manifest.task].per_token and manifest.task is not Task.FEATURE_EXTRACTION
        self._lock = Lock()
        self._opened: tuple[int, Any] = (0, None)
        session = self._session(threads)
        self.input_names = [item.name for item in session.get_inputs()]
        given = {item.name for item in session.get_outputs()}
        if missing := [name for name in manifest.outputs if name not in given]:
            raise GateFailed(f"{manifest.model_file} gives no {missing[0]}, which {folder / MANIFEST} names")

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None) -> "Predictor":
        """Check every file against the manifest, look through the graph, then load it on `threads` (default: the usable
        cores).

        Raises `GateFailed` for a changed, missing, unreadable or unsafe file.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        check_files(folder, manifest.files)
        check_graph(inside(folder, manifest.model_file), [Path(name).name for name in manifest.graph_files])
        named = read_json(inside(folder, "config.json"), MOST_CONFIG_BYTES, strict=False).get("id2label")
        written = tuple(named.get(str(number)) for number in range(len(named))) if isinstance(named, dict) else ()
        if written and manifest.labels and written != manifest.labels:
            raise GateFailed(f"{folder / MANIFEST} has other labels than config.json; copy the artifact again")
        try:
            return cls(folder, manifest, threads or usable_cores())
        except UserError as error:
            raise GateFailed(error.message, error.hint) from None

    def _open(self, threads: int) -> Any:
        try:
            return open_session(
                inside(self.folder, self.manifest.model_file),
                provider=SERVES,
                threads=threads,
                config=self.manifest.session,
            )
        except ImportError as error:
            raise UserError(f"onnxruntime cannot be loaded ({error}); pip install -r requirements.txt") from None

    def run(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Raw outputs, float32 with the batch as first axis, of one batch that has exactly `input_names`."""
        return self._run(self._session(self.threads), batch)

    def _run(self, session: Any, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        try:
            found = session.run(list(self._names), dict(batch))
        except Exception as error:  # onnxruntime raises many types, all of them about this graph and these inputs
            raise GateFailed(f"{self.manifest.model_file} cannot compute: {error}") from error
        for name, array in zip(self._names, found, strict=True):
            rows = len(next(iter(batch.values())))
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim < 2 or len(array) != rows:
                raise GateFailed(f"{self.manifest.model_file} gives {name} in a shape or type that is no answer")
        return dict(zip(self._names, found, strict=True))

    def outputs(self, items: Sequence[Any]) -> Iterator[tuple[Row, dict[str, NDArray[np.float32]]]]:
        """Each row with its raw outputs, without batch axis and padding, batch by batch and so not in order."""
        rows = self._reader.rows(items)
        batches = [[rows[place] for place in places] for places in self._reader.batches(rows)]
        batches.reverse()  # the longest first: what the engine then holds fits all that follow
        for batch, found in zip(batches, self._run_all(batches), strict=True):
            for number, row in enumerate(batch):
                yield (
                    row,
                    {
                        name: self._reader.trim(array, number, row.length) if self._per_token else array[number]
                        for name, array in found.items()
                    },
                )

    def _run_all(self, batches: Sequence[Sequence[Row]]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """The raw outputs of batches: one after another on all threads, or, where they are many, one on each thread.

        Threads that share every operator of a small batch spend much of their time waiting for each other.
        """

        def compute(batch: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
            return self.run(self._reader.stack(batch, self.input_names))

        if self.threads == 1 or len(batches) < MANY_BATCHES * self.threads or self._per_token:
            yield from map(compute, batches)
            return
        session = self._session(1)

        def compute_alone(batch: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
            return self._run(session, self._reader.stack(batch, self.input_names))

        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(compute_alone, batches)

    def _session(self, threads: int) -> Any:
        """The model for calls of so many threads each. Only one is kept, because two would hold the weights twice; a
        call that runs keeps its own until it ends."""
        with self._lock:
            if self._opened[0] != threads:
                self._opened = (0, None)  # let go of the one before the other takes memory
                self._opened = (threads, self._open(threads))
            return self._opened[1]

    def logits(self, items: Sequence[Any]) -> NDArray[np.float32]:
        """A classifier's raw outputs, float32 (items, labels), in the order of `items`."""
        found = np.zeros((len(items), len(self.labels)), dtype=np.float32)
        for row, outputs in self.outputs(items):
            found[row.item] = outputs["logits"]
        return found

    def predict(self, items: Sequence[Any], *, top_k: int | None = None, threshold: float = 0.5) -> list[Result]:
        """One answer for each item, in order.

        An item is a text, a tuple of two texts, a list of words, or a picture or recording as path, bytes or array, as
        the model was made for. `top_k` limits the labels or tokens that are told; `threshold` is the score from which
        one of several labels applies. Raises `TypeError` for one item alone, `UserError` for one of another kind.
        """
        if isinstance(items, str | bytes):
            raise TypeError("predict takes a list of items, such as ['A film to remember.']")
        asked = Asked(top_k, threshold)
        parts: list[list[Any]] = [[] for _ in items]
        for row, outputs in self.outputs(items):
            if any(np.isnan(array).any() for array in outputs.values()):
                raise GateFailed(f"item {row.item + 1} of {len(items)}: the model's answer is not a number")
            parts[row.item].append(self._head.part(items[row.item], row.encoding, outputs, asked))
        return [self._head.answer(item, found, asked) for item, found in zip(items, parts, strict=True)]

    def golden_errors(self, golden: Golden) -> tuple[list[str], dict[str, float]]:
        """What the golden examples' inputs show to be different, and each output's largest absolute error.

        Each example is answered alone, from the item itself.
        """
        found = [self._example(number, example) for number, example in enumerate(golden.examples)]
        largest = {name: max((errors.get(name, 0.0) for _, errors in found), default=0.0) for name in self._names}
        return [problem for problem, _ in found if problem], largest

    def selftest(self) -> list[str]:
        """Run the packed examples; return what differs from the reference (empty: all agree).

        Inputs must be equal and each output within the packed tolerance, so that an answer may differ only where the
        reference itself is undecided. Raises `GateFailed` when the examples cannot be read.
        """
        golden = read_golden(self.folder)
        problems = [] if golden.examples else ["golden.json holds no example"]
        for number, example in enumerate(golden.examples):
            try:
                problem, errors = self._example(number, example)
            except UserError as unreadable:
                raise GateFailed(unreadable.message, unreadable.hint) from None
            problems += [problem] if problem else []
            for name, error in errors.items():
                allowed = golden.tolerance.get(name, 0.0)
                if not error <= allowed:  # also true for NaN
                    problems.append(f"example {number}: {name} is off by {error:.4g}, allowed is {allowed:.4g}")
        return problems

    def _example(self, number: int, example: GoldenExample) -> tuple[str | None, dict[str, float]]:
        """What is wrong with an example or its inputs, or else each output's largest absolute error."""
        row, outputs = next(iter(self.outputs([example.item])))
        unlisted = [name for name in self.input_names if name not in example.inputs]
        unlisted += [name for name in self._names if name not in example.outputs]
        if unlisted:
            return f"example {number}: golden.json has no {unlisted[0]}", {}
        if difference := compare_inputs(example, row.inputs):
            return f"example {number}: {difference}", {}
        return None, {name: example.outputs[name].error(outputs[name]) for name in self._names}


def _encoder(folder: Path, manifest: Manifest) -> TextEncoder | None:
    if manifest.limits is None:
        return None
    path = inside(folder, "tokenizer.json")
    if path.stat().st_size > MOST_TOKENIZER_BYTES:
        raise GateFailed(f"{path} has more than {MOST_TOKENIZER_BYTES:,} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GateFailed(f"{path} cannot be read: {error}") from None
    answers = manifest.task is Task.QUESTION_ANSWERING
    overlap = min(WINDOW_OVERLAP, manifest.limits.max_length_tokens // 4) if answers else None
    return TextEncoder(text, manifest.limits, window_overlap=overlap)


def _reader(manifest: Manifest, encoder: TextEncoder | None) -> Reader:
    if manifest.image is not None:
        return ArrayReader.of_pictures(manifest.image)
    if manifest.sound is not None:
        return ArrayReader.of_recordings(manifest.sound)
    if encoder is None:
        raise GateFailed("the manifest does not say how an item is read")
    return TextReader(
        encoder,
        manifest.reads,
        windows=manifest.task is Task.QUESTION_ANSWERING,
        encodings=manifest.task in (Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING, Task.FILL_MASK),
        batch_tokens=MASKED_TOKENS if manifest.task is Task.FILL_MASK else BATCH_TOKENS,
    )


def _head(manifest: Manifest, encoder: TextEncoder | None) -> Head:
    make = HEADS.get(manifest.task)
    if make is None:
        raise GateFailed(f"this predict.py does not answer for {manifest.task}")
    return make(manifest, encoder)


def _classifier(manifest: Manifest, encoder: TextEncoder | None) -> Head:
    return Classifier(manifest.labels, manifest.activation)


def _mask_filler(manifest: Manifest, encoder: TextEncoder | None) -> Head:
    if encoder is None or manifest.mask_id is None:
        raise GateFailed("the manifest does not say which token is a mask")
    return MaskFiller(encoder, manifest.mask_id)


HEADS: Mapping[Task, Callable[[Manifest, TextEncoder | None], Head]] = {
    Task.TEXT_CLASSIFICATION: _classifier,
    Task.IMAGE_CLASSIFICATION: _classifier,
    Task.AUDIO_CLASSIFICATION: _classifier,
    Task.TOKEN_CLASSIFICATION: lambda manifest, encoder: Tagger(manifest.labels),
    Task.QUESTION_ANSWERING: lambda manifest, encoder: Answerer(),
    Task.FEATURE_EXTRACTION: lambda manifest, encoder: Embedder(manifest.outputs[0]),
    Task.FILL_MASK: _mask_filler,
}
"""Who answers each task."""
