"""One export of a model that writes text: its graphs, and how each is judged."""

import functools
import gc
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir

from artifact.generate.cache import CacheShape
from artifact.generate.decoder import Decoder
from artifact.generate.encoder import Encoder
from artifact.generate.golden import GoldenTexts
from artifact.language import (
    GGUF,
    GGUF_RECORD,
    GGUF_SCHEMA_VERSION,
    SCHEMA_VERSION,
    Cache,
    Continuation,
    GgufFile,
    LanguageVariant,
    Prediction,
    Reading,
    Sizes,
)
from artifact.precision import Precision
from artifact.progress import Progress
from artifact.records import sha256_file, write_json
from artifact.run_folder import RunFolder
from artifact.task import Task
from artifact.variant import Kept
from errors import GateFailed, UserError
from exporter.from_checkpoint import check_weights
from exporter.half import emulate
from exporter.inspect import inspect_graph, newest
from exporter.language.decoders import DECODERS
from exporter.language.derivations import DERIVATIONS
from exporter.language.derive import derive
from exporter.language.family import Family, Sample
from exporter.language.gate import continuation, greedy, prediction, reasons
from exporter.language.golden import golden_error, golden_texts
from exporter.language.graph_files import GraphFiles
from exporter.language.memory import lay_aside, return_freed_memory, weights_of
from exporter.language.passages import Passages
from exporter.language.practice import Practice
from exporter.language.reference import Reference, kept, kept_bytes
from exporter.language.seq2seq.listeners import listeners
from exporter.language.seq2seq.writers import ENCODER_DECODERS
from exporter.language.sizes import sizes_of
from exporter.request import Request, versions
from exporter.save import load_graph, save_graph, save_together
from exporter.sessions import file_session, graph_session
from models.checkpoint import load_model, load_tokenizer, quiet

MOST_IN_ONE_FILE = 256 * 10**6
"""Bytes of weights above which they go into a second file, from which they are read as they are needed: a file of one
piece is held in memory three times while it is written."""


def family_of(files: GraphFiles, checkpoint: Path, language: str | None = None) -> Family:
    """How a checkpoint's kind of model is exported; one that hears writes `language`.

    Raises `UserError` for one whose recordings cannot be prepared without transformers.
    """
    if files.task is Task.SPEECH2TEXT_GENERATION:
        return listeners(checkpoint, language)
    return DECODERS if files.encoder is None else ENCODER_DECODERS


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the gate found of one variant."""

    prediction: Prediction
    continuation: Continuation
    golden_error_fraction: float


@dataclass(frozen=True, slots=True)
class _Source:
    """The model that every variant comes from."""

    sha256: str
    shape: CacheShape
    sizes: Sizes
    weights: int
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class _Derived:
    """How one graph was made: what half numbers were kept from, the texts that it was chosen on, and how long it
    took."""

    kept: tuple[Kept, ...]
    chosen_on: str | None
    seconds_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """The work of one export of a checkpoint's folder, for what of it is not there yet."""

    request: Request
    run: RunFolder
    checkpoint: Path
    family: Family
    sha256: str
    progress: Progress

    def make(self, marks: Mapping[Precision, str]) -> dict[Precision, LanguageVariant]:
        """Make the variants of these precisions, which get these fingerprints.

        Raises `UserError` for what cannot be exported, and `GateFailed` after all others are made for precisions that
        this graph cannot be turned into.
        """
        with quiet():  # transformers names kernels that only its own loops would use
            return self._made(marks)

    def write_ggufs(self, todo: Sequence[Precision]) -> None:
        """Write llama.cpp's file of each of these precisions."""
        from exporter.language.gguf_file import write_gguf

        with quiet():
            model = load_model(self.checkpoint)
        for done, precision in enumerate(todo):
            self.progress("export", done, len(todo), f"{precision} for llama.cpp")
            folder = self._folder(precision)
            (folder / GGUF_RECORD).unlink(missing_ok=True)
            write_gguf(model, precision, folder / GGUF)
            record = GgufFile(
                schema_version=GGUF_SCHEMA_VERSION,
                checkpoint_sha256=self.sha256,
                size_bytes=(folder / GGUF).stat().st_size,
                sha256=sha256_file(folder / GGUF),
            )
            write_json(folder / GGUF_RECORD, record)

    def _made(self, marks: Mapping[Precision, str]) -> dict[Precision, LanguageVariant]:
        total = len(marks) + 2
        self.progress("export", 0, total, "loading")
        model = load_model(self.checkpoint)
        check_weights(model)
        family = self.family
        shape = family.shape(model)
        tokenizer = load_tokenizer(self.checkpoint)
        self.progress("export", 0, total, "reading what it is judged on")
        passages = family.passages(self.request.data, model, tokenizer, shape.context)  # before anything is written
        self.run.begin()
        if len(marks) > 1:
            self._check_room(kept_bytes(model, passages))
        self.run.link_checkpoint(self.checkpoint)
        samples = [
            sample
            for sample in family.samples(model, tokenizer)
            if len(family.begin(model, sample.read)[0]) < shape.context
        ]
        golden = golden_texts(model, family, samples, shape.context, self.sha256)
        write_json(self.run.golden, golden)
        derived, refused = self._derive(tuple(marks), model, tokenizer, shape)
        tell = functools.partial(self.progress, "export", total - 1, total)
        judged = self._judge(tuple(derived), model, shape, passages, samples, golden, tell)
        weights = sum(weight.numel() for weight in model.parameters())
        source = _Source(self.sha256, shape, sizes_of(model), weights, family.reading(model))
        made = {
            precision: self._record(precision, marks[precision], source, judged[precision], derived[precision])
            for precision in derived
        }
        for precision, variant in made.items():
            write_json(self._folder(precision) / "variant.json", variant)
        self.progress("export", total, total)
        if refused:
            said = (f"{precision}: {reason}" for precision, reason in refused.items())
            raise GateFailed("; ".join(said), "leave that precision out with --precisions")
        return made

    def _check_room(self, needed: int) -> None:
        """Raise `UserError`, before hours of work, where PyTorch's answers will not fit onto the disk."""
        free = shutil.disk_usage(self.run.directory).free
        if free < needed:
            raise UserError(
                f"judging keeps {needed / 1e9:.1f} GB of PyTorch's answers in {self.run.directory} for a while, and "
                f"{free / 1e9:.1f} GB are free there",
                "free some space, judge by fewer texts, or make one precision after another (--precisions)",
            )

    def _derive(
        self, todo: tuple[Precision, ...], model: Any, tokenizer: Any, shape: CacheShape
    ) -> tuple[dict[Precision, _Derived], dict[Precision, str]]:
        """Write the graphs; and why some precisions cannot be made of this one."""
        derived: dict[Precision, _Derived] = {}
        refused: dict[Precision, str] = {}
        traced = self._folder(Precision.FP32)
        practice = Practice(self.request.calibration, self.family, model, tokenizer, shape, traced)
        for done, precision in enumerate(todo):
            self.progress("export", done, len(todo) + 2, str(precision))
            try:
                derived[precision] = self._write(precision, practice)
            except GateFailed as error:
                refused[precision] = error.message
            gc.collect()  # graphs refer to themselves
            return_freed_memory()
        return derived, refused

    def _write(self, precision: Precision, practice: Practice) -> _Derived:
        """Make and save the graphs of one precision. Raises `GateFailed` where it cannot be made of this model."""
        started, derivation = time.perf_counter(), DERIVATIONS[precision]
        graphs, kept = self._graphs(precision, practice)
        (self._folder(precision) / "variant.json").unlink(missing_ok=True)  # what it says is of another graph
        self._save(graphs, self._folder(precision))
        seconds_s = round(time.perf_counter() - started, 3)
        return _Derived(kept, practice.passages.name if derivation.learns else None, seconds_s)

    def _graphs(self, precision: Precision, practice: Practice) -> tuple[Mapping[str, onnx_ir.Model], tuple[Kept, ...]]:
        """The traced graphs, or those that are made of them, and what half numbers were kept from."""
        if precision is Precision.FP32:
            return self.family.trace(practice.model), ()
        derivation = DERIVATIONS[precision]
        made = {}
        for name in self.family.files.graphs:
            seen = practice.seen(derivation, name)
            lay_aside(weights_of(practice.model))
            made[name] = derive(derivation, load_graph(practice.traced / name), self.request.options, seen)
        kept = tuple(item for _, items in made.values() for item in items)
        return {name: graph for name, (graph, _) in made.items()}, kept

    def _save(self, graphs: Mapping[str, onnx_ir.Model], folder: Path) -> None:
        if (weights := self.family.files.weights) is not None:
            save_together({folder / name: graph for name, graph in graphs.items()}, weights)
            return
        most = min(self.request.external_data_bytes, MOST_IN_ONE_FILE)
        for name, graph in graphs.items():
            save_graph(graph, folder / name, external_data_bytes=most)

    def _judge(
        self,
        todo: tuple[Precision, ...],
        model: Any,
        shape: CacheShape,
        passages: Passages,
        samples: Sequence[Sample],
        golden: GoldenTexts,
        tell: Callable[[str], None],
    ) -> dict[Precision, _Judged]:
        tell(f"{passages.tokens:,} tokens, by PyTorch")
        return_freed_memory()  # what derivations have learnt from
        wanted = greedy(model, passages, shape.context)

        def judge(precision: Precision, answers: Reference) -> _Judged:
            tell(f"{precision}: {passages.tokens:,} tokens, beside PyTorch")
            lay_aside(weights_of(model))
            return_freed_memory()  # of the one before
            decoder = self._open(precision, shape.context)
            return _Judged(
                prediction(decoder, answers),
                continuation(decoder, passages, wanted),
                golden_error(model, self.family, decoder, samples, golden),
            )

        if len(todo) == 1:
            return {todo[0]: judge(todo[0], Reference(model, passages))}
        with kept(model, passages, self.run.directory) as answers:
            return {precision: judge(precision, answers) for precision in todo}

    def _open(self, precision: Precision, context: int) -> Decoder:
        """As it is served; half arithmetic is emulated, because a CPU computes it in fp32 and hides overflow."""
        files, half = self.family.files, DERIVATIONS[precision].half

        def opened(name: str) -> Any:
            path = self._folder(precision) / name
            return file_session(path) if half is None else graph_session(emulate(load_graph(path), half))

        encoder = None if files.encoder is None else Encoder(opened(files.encoder))
        return Decoder(opened(files.decoder), context, encoder)

    def _record(
        self,
        precision: Precision,
        mark: str,
        source: _Source,
        judged: _Judged,
        derived: _Derived,
    ) -> LanguageVariant:
        folder, derivation, known = self._folder(precision), DERIVATIONS[precision], self.family.files
        facts = [inspect_graph(folder / name) for name in known.graphs]
        files, shape = known.sha256s(folder), source.shape.of(derivation.cache)
        return LanguageVariant(
            schema_version=SCHEMA_VERSION,
            fingerprint=mark,
            checkpoint_sha256=source.sha256,
            task=known.task,
            precision=precision,
            file=known.decoder,
            size_bytes=sum((folder / name).stat().st_size for name in files),
            files=files,
            opset=max(item.opset for item in facts),
            minimum_onnxruntime=newest(item.minimum_onnxruntime for item in facts),
            operators=dict(sum((Counter(item.operators) for item in facts), Counter())),
            weights=source.weights,
            weight_bits=derivation.bits,
            head_bits=derivation.head(self.request.options),
            block_size=derivation.block(self.request.options),
            calibrated_on=derived.chosen_on,
            kept=derived.kept,
            emulated=derivation.half is not None,
            cache=Cache(
                layers=shape.layers,
                heads=shape.heads,
                head_size=shape.head_size,
                context_tokens=shape.context,
                bytes_per_token=shape.bytes_per_position,
                state_bytes=shape.state_bytes,
            ),
            sizes=source.sizes,
            reading=source.reading,
            prediction=judged.prediction,
            continuation=judged.continuation,
            golden_error_fraction=judged.golden_error_fraction,
            reasons=reasons(precision, judged.prediction, judged.continuation),
            seconds_s=derived.seconds_s,
            versions=versions(),
        )

    def _folder(self, precision: Precision) -> Path:
        return self.run.variant(precision)
