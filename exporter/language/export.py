"""From a causal language model to a run's verified decoder graphs; what is there already is not made again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.identity import checkpoint_sha256
from artifact.language import GGUF, GGUF_RECORD, GgufFile, LanguageVariant
from artifact.precision import Precision
from artifact.progress import Progress, silent
from artifact.records import fingerprint, read_if_present, sha256_file
from artifact.run_folder import RunFolder, claim_output
from artifact.task import Task
from artifact.tokenizer import read_config
from errors import UserError
from exporter.export import ExportedLanguage
from exporter.language.derivations import DERIVATIONS, OPSET
from exporter.language.graph_files import GraphFiles, graph_files_of
from exporter.language.source import checkpoint_folder
from exporter.options import Options, Profile
from exporter.request import Request, Source, versions
from models.quiet import ON_IMPORT, hushed

RECIPE = 11
"""Raised whenever the same checkpoint would give another graph."""


def export_language(request: Request, progress: Progress = silent) -> tuple[ExportedLanguage, ...]:
    """Trace once, derive every asked precision, and judge each beside PyTorch fp32.

    Writes `variants/PRECISION/{model.onnx, variant.json}` into the run folder; a GGUF file is unpacked to the run's
    own `checkpoint/` first. A variant that is not good enough is written and returned all the same. Raises `UserError`
    for what cannot be exported, and `GateFailed` after all others are made for precisions that this graph cannot be
    turned into.
    """
    if not isinstance(request.model, Path):
        raise UserError("--module is for modules that answer in one pass", "name a checkpoint")
    _check(request)
    run = claim_output(request.out)
    checkpoint = checkpoint_folder(request.model, run, progress)
    files = graph_files_of(checkpoint)
    _check_kind(request, checkpoint, files)
    sha256 = checkpoint_sha256(checkpoint) if checkpoint.is_dir() else ""
    asked = _Asked(request, run, checkpoint, files, sha256)
    marks = asked.marks()
    known = {precision: found for precision, mark in marks.items() if (found := asked.kept(precision, mark))}
    todo = {precision: mark for precision, mark in marks.items() if precision not in known}
    ggufs = asked.ggufs_to_write() if request.gguf else ()
    if todo or ggufs:
        with hushed(*ON_IMPORT):
            from exporter.language.job import Job, family_of

        job = Job(request, run, checkpoint, family_of(files, checkpoint, request.language), sha256, progress)
        known |= job.make(todo) if todo else {}
        if ggufs:
            job.write_ggufs(ggufs)
    return tuple(
        ExportedLanguage(known[precision], run.variant(precision) / files.decoder, precision in todo)
        for precision in marks
        if precision in request.precisions or not known[precision].passed
    )


def _check(request: Request) -> None:
    """Raise `UserError` for what is asked of language models in vain."""
    unknown = [precision for precision in request.precisions if precision not in DERIVATIONS]
    if unknown:
        raise UserError(
            f"{unknown[0]} is not made of language models yet", f"choose from: {', '.join(DERIVATIONS)} (--precisions)"
        )
    usual, chosen = Options(), request.options
    asked = {
        "--pooling": request.pooling is not None,
        "--profile": chosen.profile is Profile.ORT_GPU,
        "--target": chosen.target is not usual.target,
        "--weights": chosen.weights is not usual.weights,
        "--head-bits": chosen.head_bits != usual.head_bits and Precision.INT4 not in request.precisions,
        "--opset": request.opset not in (None, OPSET),
        "--allow-pickle": request.allow_pickle,
    }
    for flag, is_asked in asked.items():
        if is_asked:
            raise UserError(f"{flag} as given does nothing for language models yet", "leave it out")


def _check_kind(request: Request, checkpoint: Path, files: GraphFiles) -> None:
    """Raise `UserError` for what is asked of another kind of model than the checkpoint's, or of llama.cpp in vain."""
    if request.task not in (None, files.task):
        raise UserError(f"--task is {request.task}, and {checkpoint} is for {files.task}", "leave --task out")
    if request.language is not None and files.task is not Task.SPEECH2TEXT_GENERATION:
        raise UserError("--language is for models that hear recordings", "leave it out")
    if request.gguf:
        from exporter.language.gguf_file import check_written

        check_written(read_config(checkpoint, "config.json"))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks of a checkpoint's folder, and what of it is there."""

    request: Request
    run: RunFolder
    checkpoint: Path
    files: GraphFiles
    sha256: str

    def marks(self) -> dict[Precision, str]:
        """What each variant depends on; the fp32 graph is always among them, because all others come from it."""
        request, options, task = self.request, self.request.options, self.files.task
        settings = self.checkpoint / "generation_config.json"
        common: dict[str, object] = {
            "recipe": RECIPE,
            "source": self.sha256,
            "data": _marked(request.data, task),
            "settings": sha256_file(settings) if settings.is_file() else None,
            "language": request.language,
            "external_data_bytes": request.external_data_bytes,
            "versions": versions(),
        }
        practice = _marked(request.calibration, task)
        marks = {}
        for precision in dict.fromkeys((Precision.FP32, *request.precisions)):
            derivation = DERIVATIONS[precision]
            block = derivation.block(options)
            own = {
                "precision": precision,
                "rounding": block and [block, options.accuracy_level, derivation.head(options)],
                "calibration": practice if derivation.learns else None,
            }
            marks[precision] = fingerprint(common | own)
        return marks

    def kept(self, precision: Precision, mark: str) -> LanguageVariant | None:
        """A variant made earlier from the same inputs, if its files are still whole."""
        folder = self.run.variant(precision)
        found = read_if_present(folder / "variant.json", LanguageVariant)
        whole = found is not None and found.fingerprint == mark and found.files == self.files.sha256s(folder)
        return found if whole else None

    def ggufs_to_write(self) -> Sequence[Precision]:
        """The asked precisions whose file for llama.cpp is not there yet."""
        return [precision for precision in self.request.precisions if not self._has_gguf(precision)]

    def _has_gguf(self, precision: Precision) -> bool:
        folder = self.run.variant(precision)
        found = read_if_present(folder / GGUF_RECORD, GgufFile)
        whole = found is not None and (folder / GGUF).is_file() and sha256_file(folder / GGUF) == found.sha256
        return whole and found is not None and found.checkpoint_sha256 == self.sha256


def _marked(source: Source | None, task: Task) -> str | None:
    """What a variant depends on of a file: texts, recordings, and what is to be written of them."""
    return None if source is None else source.rows(task).sha256
