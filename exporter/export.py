"""From a checkpoint or a module to a run's verified variants; what is there already is not made again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from artifact.cpu import saturates
from artifact.identity import checkpoint_sha256
from artifact.labels import read_task
from artifact.language import LanguageVariant
from artifact.precision import Precision
from artifact.predict.golden import Golden
from artifact.progress import Progress, silent
from artifact.records import read_if_present
from artifact.run_folder import RunFolder, claim_output
from artifact.serving import Serving
from artifact.task import Task
from artifact.variant import Variant, is_whole
from exporter.options import Target
from exporter.request import ModuleSource, Request
from models.quiet import ON_IMPORT, hushed

if TYPE_CHECKING:
    from exporter.subject import Subject


@dataclass(frozen=True, slots=True)
class Exported:
    """A variant and whether it was made now (`False`: the same one was already there)."""

    variant: Variant
    path: Path
    made: bool


@dataclass(frozen=True, slots=True)
class ExportedLanguage:
    """The same of a language model."""

    variant: LanguageVariant
    path: Path
    made: bool


def export(request: Request, progress: Progress = silent) -> tuple[Exported, ...]:
    """Trace once, derive every asked precision, and check each against PyTorch.

    Writes `variants/PRECISION/{model.onnx, variant.json}`, `serving.json` and, where items can be prepared without
    transformers, `golden.json` into the run folder `request.out`. Variants that are there already and were made from
    the same inputs are kept. A variant that is not good enough is written and returned all the same; its `passed` says
    so. Raises `UserError` for what cannot be exported, and `GateFailed` for a graph that half precision cannot be made
    of.
    """
    request.check()
    run = claim_output(request.out)
    source_sha256, built = _source(request)
    marks = request.fingerprints(source_sha256, request.task or _task_of(request))
    kept = {precision: variant for precision, mark in marks.items() if (variant := _kept(run, precision, mark))}
    made: dict[Precision, Variant] = {}
    if len(kept) < len(marks) or not _golden_is_of(run, source_sha256):
        with hushed(*ON_IMPORT):
            from exporter.job import Job

        made = Job(request, run, progress, source_sha256, built).make(marks, kept)
    known = kept | made
    shown = [precision for precision in marks if precision in request.precisions or not known[precision].passed]
    return tuple(
        Exported(known[precision], run.variant(precision) / known[precision].file, precision in made)
        for precision in shown
    )


def _source(request: Request) -> "tuple[str, Subject | None]":
    """Hash of what is exported. A module has to be built for it: what its file imports or loads may have changed."""
    if not isinstance(request.model, ModuleSource):
        return checkpoint_sha256(request.model) if request.model.is_dir() else "", None
    with hushed(*ON_IMPORT):
        from exporter.from_module import module_sha256, module_subject

    built = module_subject(request.model)
    return module_sha256(request.model, built), built


def _task_of(request: Request) -> Task | None:
    """What a checkpoint's class says, as far as its configuration tells."""
    folder = None if isinstance(request.model, ModuleSource) else request.model
    return read_task(folder) if folder is not None and (folder / "config.json").is_file() else None


def failures(exported: Sequence[Exported | ExportedLanguage]) -> str:
    """Which variants failed their gates and why; empty when none did."""
    failed = [item.variant for item in exported if not item.variant.passed]
    told = "; ".join(f"{variant.precision}: {', '.join(variant.reasons)}" for variant in failed)
    for_x86 = (variant.recipe.target == Target.X86 for variant in failed if isinstance(variant, Variant))
    if any(for_x86) and saturates():
        told += "; this CPU has no VNNI, and its 8-bit kernels saturate: see --target x86-without-vnni"
    return told


def _kept(run: RunFolder, precision: Precision, mark: str) -> Variant | None:
    """A variant made earlier from the same inputs, if its files are still whole."""
    variant = read_if_present(run.variant(precision) / "variant.json", Variant)
    if variant is None or variant.fingerprint != mark or not is_whole(variant, run.variant(precision)):
        return None
    return variant


def _golden_is_of(run: RunFolder, source_sha256: str) -> bool:
    """Whether the run says how items are prepared and has its golden examples, or none are wanted."""
    fp32 = read_if_present(run.variant(Precision.FP32) / "variant.json", Variant)
    if fp32 is None or fp32.task is Task.MODULE:
        return fp32 is not None
    serving = read_if_present(run.serving, Serving)
    if serving is None or serving.checkpoint_sha256 != source_sha256:
        return False
    golden = read_if_present(run.golden, Golden)
    return serving.refused is not None or (golden is not None and golden.checkpoint_sha256 == source_sha256)
