"""From a causal language model to a run's verified decoder graphs; what is there already is not made again."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx_ir

from artifact.generate.decoder import CacheShape, Decoder
from artifact.identity import checkpoint_sha256
from artifact.language import SCHEMA_VERSION, Cache, LanguageVariant
from artifact.precision import Precision
from artifact.predict.cores import usable_cores
from artifact.predict.session import SessionConfig, open_session
from artifact.progress import Progress, silent
from artifact.records import fingerprint, read_if_present, sha256_file, write_json
from artifact.run_folder import RunFolder, claim_output
from artifact.task import Task
from errors import UserError
from exporter.causal.blocks import block_quantized
from exporter.causal.gate import continuation, greedy, predictions, reasons
from exporter.causal.moments import Moments, own_texts, second_moments
from exporter.causal.passages import read_passages
from exporter.causal.trace import cache_shape, trace
from exporter.export import ExportedLanguage
from exporter.from_checkpoint import check_weights
from exporter.inspect import inspect_graph
from exporter.options import Options, Profile
from exporter.request import Request, versions
from exporter.save import load_graph, save_graph
from exporter.sessions import PROVIDER
from models import gguf
from models.checkpoint import load_model, load_tokenizer

RECIPE = 1
"""Raised whenever the same checkpoint would give another graph."""


HEAD_BITS = 8
"""Of int4's table and head: in 4 bits they cost a small model more than all its layers do (`docs/benchmarks.md`)."""


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits of the weights of products, and of the table of tokens with the head that shares it."""

    products: int
    head: int
    make: Callable[[onnx_ir.Model, Options, Moments], onnx_ir.Model]
    is_calibrated: bool = False


def _as_traced(graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
    return graph


def _int8(graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
    return block_quantized(graph, 8, options.block_size)


def _int4(graph: onnx_ir.Model, options: Options, moments: Moments) -> onnx_ir.Model:
    return block_quantized(graph, 4, options.block_size, head_bits=HEAD_BITS, moments=moments)


DERIVATIONS: Mapping[Precision, Bits] = {
    Precision.FP32: Bits(32, 32, _as_traced),
    Precision.INT8_DYNAMIC: Bits(8, 8, _int8),
    Precision.INT4: Bits(4, HEAD_BITS, _int4, is_calibrated=True),
}
"""How each precision of a decoder is made."""


def export_language(request: Request, progress: Progress = silent) -> tuple[ExportedLanguage, ...]:
    """Trace once, derive every asked precision, and judge each beside PyTorch fp32.

    Writes `variants/PRECISION/{model.onnx, variant.json}` into the run folder; a GGUF file is unpacked to the run's
    own `checkpoint/` first. A variant that is not good enough is written and returned all the same. Raises `UserError`
    for what cannot be exported.
    """
    if isinstance(request.model, Path):
        _check(request)
        run = claim_output(request.out)
        return _Job(request, run, _checkpoint(request.model, run, progress), progress).make()
    raise UserError("--module is for modules that answer in one pass", "name a checkpoint")


def _check(request: Request) -> None:
    unknown = [precision for precision in request.precisions if precision not in DERIVATIONS]
    if unknown:
        raise UserError(
            f"{unknown[0]} is not made of language models yet", f"choose from: {', '.join(DERIVATIONS)} (--precisions)"
        )
    if request.pooling is not None:
        raise UserError("--pooling is for models that give features", "leave it out")
    if request.options.profile is Profile.ORT_GPU:
        raise UserError("--profile ort-gpu is not made of language models yet", "leave it out")


def _checkpoint(model: Path, run: RunFolder, progress: Progress) -> Path:
    """The folder of a checkpoint; that of a GGUF file is the run's own, unpacked."""
    if not gguf.is_gguf(str(model)):
        run.begin()
        run.link_checkpoint(model)
        return model
    if not model.is_file():
        raise UserError(f"{model} does not exist", "check the path")
    mark = run.directory / "gguf.json"
    found = sha256_file(model)
    if (run.own_checkpoint / "config.json").is_file() and _told(mark) == found:
        return run.own_checkpoint
    progress("export", 0, 1, f"unpacking {model.name}")
    run.begin()
    part = run.own_checkpoint.with_name(".checkpoint.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(run.own_checkpoint, ignore_errors=True)
    gguf.unpack(model, part)
    part.rename(run.own_checkpoint)
    write_json(mark, Unpacked(schema_version=1, file=model.name, sha256=found))
    return run.own_checkpoint


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """`gguf.json`: which file a run's checkpoint was unpacked from."""

    schema_version: int
    file: str
    sha256: str


def _told(mark: Path) -> str | None:
    found = read_if_present(mark, Unpacked)
    return found.sha256 if found else None


@dataclass(frozen=True, slots=True)
class _Job:
    """One export of a checkpoint's folder."""

    request: Request
    run: RunFolder
    checkpoint: Path
    progress: Progress

    def make(self) -> tuple[ExportedLanguage, ...]:
        sha256 = checkpoint_sha256(self.checkpoint)
        marks = {precision: self._mark(precision, sha256) for precision in self._precisions}
        kept = {precision: found for precision, mark in marks.items() if (found := self._kept(precision, mark))}
        todo = [precision for precision in marks if precision not in kept]
        made = self._made(todo, marks, sha256) if todo else {}
        known = {**kept, **made}
        return tuple(
            ExportedLanguage(known[precision], self._path(precision), precision in made)
            for precision in marks
            if precision in self.request.precisions or not known[precision].passed
        )

    @property
    def _precisions(self) -> tuple[Precision, ...]:
        """The fp32 graph is always made, because all others come from it."""
        return tuple(dict.fromkeys((Precision.FP32, *self.request.precisions)))

    def _made(
        self, todo: list[Precision], marks: Mapping[Precision, str], sha256: str
    ) -> dict[Precision, LanguageVariant]:
        total = len(todo) + 2
        self.progress("export", 0, total, "one trace")
        model = load_model(self.checkpoint)
        check_weights(model)
        shape = cache_shape(model)
        tokenizer = load_tokenizer(self.checkpoint)
        passages = read_passages(self.request.data, tokenizer, shape.context)
        moments: Moments = {}
        if any(DERIVATIONS[precision].is_calibrated for precision in todo):
            self.progress("export", 0, total, "inputs of each layer")
            source = self.request.calibration
            rows = own_texts(model) if source is None else read_passages(source, tokenizer, shape.context).rows
            moments = second_moments(model, rows)
        spent: dict[Precision, float] = {}
        traced = self._path(Precision.FP32)
        for done, precision in enumerate(todo, start=1):
            started = time.perf_counter()
            if precision is Precision.FP32:
                save_graph(trace(model), traced, external_data_bytes=self.request.external_data_bytes)
            else:
                self.progress("export", done, total, str(precision))
                graph = DERIVATIONS[precision].make(load_graph(traced), self.request.options, moments)
                save_graph(graph, self._path(precision), external_data_bytes=self.request.external_data_bytes)
            spent[precision] = time.perf_counter() - started
        self.progress("export", total - 1, total, f"{passages.tokens} tokens, beside PyTorch")
        wanted = greedy(model, passages, shape.context)
        decoders = {precision: self._open(precision, shape) for precision in todo}
        predicted = predictions(model, decoders, passages)
        found = {}
        for precision, decoder in decoders.items():
            continued = continuation(model, decoder, passages, wanted)
            facts = inspect_graph(self._path(precision))
            files = self._files(precision)
            bits = DERIVATIONS[precision]
            found[precision] = LanguageVariant(
                schema_version=SCHEMA_VERSION,
                fingerprint=marks[precision],
                checkpoint_sha256=sha256,
                task=Task.TEXT_GENERATION,
                precision=precision,
                file="model.onnx",
                size_bytes=sum((self._path(precision).parent / name).stat().st_size for name in files),
                files=files,
                opset=facts.opset,
                minimum_onnxruntime=facts.minimum_onnxruntime,
                operators=facts.operators,
                weights=sum(weight.numel() for weight in model.parameters()),
                weight_bits=bits.products,
                head_bits=bits.head,
                block_size=self.request.options.block_size if bits.products < 32 else None,
                calibrated_on=self._calibration if bits.is_calibrated else None,
                cache=Cache(
                    layers=shape.layers,
                    heads=shape.heads,
                    head_size=shape.head_size,
                    context_tokens=shape.context,
                    bytes_per_token=shape.bytes_per_position,
                ),
                prediction=predicted[precision],
                continuation=continued,
                reasons=reasons(precision, predicted[precision], continued),
                seconds_s=round(spent[precision], 3),
                versions=versions(),
            )
            write_json(self._path(precision).parent / "variant.json", found[precision])
        self.progress("export", total, total)
        return found

    @property
    def _calibration(self) -> str:
        source = self.request.calibration
        return "texts that the model made up itself" if source is None else source.path.name

    def _path(self, precision: Precision) -> Path:
        return self.run.variant(precision) / "model.onnx"

    def _files(self, precision: Precision) -> dict[str, str]:
        folder = self._path(precision).parent
        names = [name for name in ("model.onnx", "model.onnx_data") if (folder / name).is_file()]
        return {name: sha256_file(folder / name) for name in names}

    def _open(self, precision: Precision, shape: CacheShape) -> Decoder:
        path = self._path(precision)
        session = open_session(path, provider=PROVIDER, threads=usable_cores(), config=SessionConfig())
        return Decoder(session, shape.context)

    def _mark(self, precision: Precision, sha256: str) -> str:
        """What a variant depends on."""
        data, options = self.request.data, self.request.options
        judged = None if data is None else [data.sha256, data.limit, data.columns.text]
        rounding = None if precision is Precision.FP32 else options.block_size
        source = self.request.calibration if DERIVATIONS[precision].is_calibrated else None
        calibration = None if source is None else [source.sha256, source.limit, source.columns.text]
        return fingerprint(
            {
                "recipe": RECIPE,
                "source": sha256,
                "precision": precision,
                "data": judged,
                "block": rounding,
                "calibration": calibration,
                "external_data_bytes": self.request.external_data_bytes,
                "versions": versions(),
            }
        )

    def _kept(self, precision: Precision, mark: str) -> LanguageVariant | None:
        """A variant made earlier from the same inputs, if its files are still whole."""
        found = read_if_present(self._path(precision).parent / "variant.json", LanguageVariant)
        whole = found is not None and found.fingerprint == mark and found.files == self._files(precision)
        return found if whole else None
