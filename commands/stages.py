"""One function for each stage: check that its extra is installed, show progress, call the room that does it."""

import json
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from artifact.layout import PLAIN, Extras
from artifact.precision import Precision
from artifact.task import WRITES, Task
from errors import UserError
from measure.plan import Plan
from models.training import Device, Lesson, Teacher, TrainingPrecision, TrainingRecord

EVERY = ("all",)
BATCH_SIZES, BATCH_SIZES_OF_LANGUAGE = (1, 8), (1,)

if TYPE_CHECKING:
    from artifact.examples import Examples
    from artifact.placing import Packed
    from artifact.run_folder import RunFolder
    from artifact.verify import Verified
    from exporter.export import Exported, ExportedLanguage
    from exporter.request import Request
    from report.load import LoadReport
    from report.policy import Policy
    from report.terminal import ProgressBar
    from report.verdict import Verdict
    from side_by_side.records import SideBySide


def name_teacher(checkpoint: Path | None, share: float | None, temperature: float | None) -> Teacher | None:
    """The teacher with what was said about it. Raises `UserError` for what is said of none."""
    said = {name: value for name, value in (("share", share), ("temperature", temperature)) if value is not None}
    if checkpoint is None:
        if said:
            raise UserError("--teacher-share and --temperature are about a teacher", "name one: --teacher CHECKPOINT")
        return None
    return Teacher(checkpoint=str(checkpoint), **said)


def _check_packages(lesson: Lesson, task: Task) -> None:
    """Raise `UserError` when something that a lesson needs is not installed."""
    need("train", "torch", "transformers", "accelerate")
    if lesson.tensorboard:
        need("tensorboard", "tensorboard")
    if lesson.config.lora:
        need("lora", "peft")
    if lesson.base_model.lower().endswith(".gguf"):
        need("gguf", "gguf")
    if task is Task.IMAGE_CLASSIFICATION:
        need("images", "PIL")


def finetune(lesson: Lesson, out: Path, *, overwrite: bool = False) -> "tuple[TrainingRecord, bool]":
    """Fine-tune, or reuse what the same data and settings made before; says which."""
    from artifact.progress import silent
    from artifact.run_folder import claim_output
    from commands.tell import tell_data
    from models.lesson import learn
    from models.reading import read_lesson

    claim_output(out)  # what is wrong with it, and with the data, is said before torch is loaded
    rows = read_lesson(lesson)
    _check_packages(lesson, rows[0].task)
    with _progress() as bar:
        progress, told = (bar, tell_data) if speaks() else (silent, lambda summary: None)
        return learn(lesson, out, rows=rows, overwrite=overwrite, progress=progress, told=told)


def finetune_side_by_side(lesson: Lesson, out: Path, settings: str, *, overwrite: bool = False) -> "SideBySide":
    """Fine-tune in several settings, in turns, and compare them."""
    from models.processes import launched
    from models.reading import read_lesson
    from side_by_side.setting import parse_settings
    from side_by_side.train import train_side_by_side

    named = parse_settings(settings)
    if lesson.config.device is not Device.AUTO or lesson.config.precision is not TrainingPrecision.AUTO:
        raise UserError("--compare names devices and precisions", "leave --device and --precision out")
    if launched():
        raise UserError("--compare starts processes of its own", "start it without torchrun or accelerate launch")
    rows, _ = read_lesson(lesson)  # what is wrong with the data is said once, and before anything starts
    _check_packages(lesson, rows.task)
    with _progress() as bar:
        return train_side_by_side(lesson, named, out, overwrite=overwrite, progress=bar)


def speaks() -> bool:
    """Whether this process is the one that talks: the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def export_request(
    checkpoint: Path | None,
    out: Path,
    precisions: tuple[Precision, ...] | None,
    *,
    module: str | None,
    data: tuple[Path | None, int],
    calibration: Path | None,
    columns: tuple[str | None, str | None, str | None],
    pooled: bool = True,
    **chosen: Any,
) -> "Request":
    """One typed request: a run's own checkpoint and splits where the user names none, all precisions for `None`, and
    the pooling that a folder of sentence-transformers names, unless it shall not be `pooled`.

    What cannot be calibrated is left out of all, and said. Raises `UserError` when there is nothing to export.
    """
    need("train", "torch", "transformers", "onnx", "onnxscript", "optimum")
    from artifact.run_folder import RunFolder, claim_output
    from exporter.language.derivations import DERIVATIONS
    from exporter.request import CALIBRATED, EXPORTED, ModuleSource, Request, Source
    from models.checkpoint import check_files
    from models.rows import Columns

    if checkpoint is None and module is None:
        raise UserError("there is nothing to export", "name a checkpoint, or a module with --module FILE:FUNCTION")
    if module and (chosen.get("task") or chosen.get("pooling") or not pooled):
        raise UserError("--task and --pooling are for checkpoints, and --module is given", "leave them out")
    claim_output(out)
    run = RunFolder(checkpoint) if checkpoint else RunFolder(out)
    named, limit = Columns(*columns), data[1]
    judged = Source(data[0], named, limit) if data[0] else None
    training = Source(calibration, named) if calibration else None
    if run.is_run and module is None:  # its own files have the columns that finetune wrote
        judged = judged or (Source(run.evaluation_data, Columns(), limit) if run.evaluation_data.is_file() else None)
        training = training or (Source(run.training_data, Columns()) if run.training_data.is_file() else None)
        checkpoint = run.checkpoint or checkpoint
    if module is None:
        check_files(checkpoint or out, allow_pickle=bool(chosen.get("allow_pickle")))  # before torch is loaded
        chosen |= _as_saved(checkpoint or out, chosen, pooled=pooled)
    language = module is None and _is_language(checkpoint or out, chosen.get("task"))
    if not language:
        _refuse_of_language_models(chosen)
    elif chosen.get("gguf"):
        need("gguf", "gguf")
    if precisions is None:
        every = tuple(DERIVATIONS) if language else EXPORTED
        precisions = tuple(item for item in every if training or item not in CALIBRATED)
        for item in set(every) - set(precisions):
            typer.echo(f"{item} is left out: it needs training examples (--calibration FILE)", err=True)
    return Request(
        is_language=language,
        model=ModuleSource.parse(module, checkpoint) if module else checkpoint or out,
        out=out,
        precisions=precisions,
        data=judged,
        calibration=training,
        **chosen,
    )


def _refuse_of_language_models(chosen: dict[str, Any]) -> None:
    """Raise `UserError` for what the user asked for and a model that answers in one pass has not."""
    from exporter.options import Options

    options = chosen.get("options", Options())
    kinds = {
        "--gguf": (chosen.get("gguf"), "language models"),
        "--head-bits": (options.head_bits != Options().head_bits, "language models"),
        "--language": (chosen.get("language"), "models that hear recordings"),
    }
    for flag, (is_asked, kind) in kinds.items():
        if is_asked:
            raise UserError(f"{flag} is for {kind}, and this is none", "leave it out, or name its --task")


def _is_language(model: Path, task: Task | None) -> bool:
    """Whether a model is exported as one that writes texts token by token."""
    from models.checkpoint import writes_text
    from models.gguf import is_gguf

    return task in WRITES or is_gguf(str(model)) or (task is not Task.FEATURE_EXTRACTION and writes_text(model))


def _as_saved(checkpoint: Path, chosen: dict[str, Any], *, pooled: bool) -> dict[str, Any]:
    """Task and pooling of a folder of sentence-transformers, as far as the user did not choose another, which is said.

    Raises `UserError` where something else runs after the model than one pooling that is known.
    """
    from artifact.sentences import MODULES, declared_pooling, gives_vectors, left_out

    if chosen.get("task") not in (None, Task.FEATURE_EXTRACTION) or not gives_vectors(checkpoint):
        if not pooled:
            raise UserError("--no-pooling is for folders of sentence-transformers, and this is none", "leave it out")
        return {}
    pooling = chosen.get("pooling")
    if pooling is None and pooled:
        pooling = declared_pooling(checkpoint)
        if pooling is None:
            raise UserError(
                f"{checkpoint / MODULES} asks for more than one pooling, or for steps that are not known",
                "pool with --pooling, such as --pooling mean, or give the vectors of tokens with --no-pooling, or name "
                "with --task what else it is for",
            )
        typer.echo(f"{checkpoint / MODULES} says how to pool: {pooling} (else: --pooling, --no-pooling)", err=True)
    for sentence in left_out(checkpoint):
        typer.echo(f"note: {sentence}", err=True)
    return {"task": Task.FEATURE_EXTRACTION, "pooling": pooling}


def export_failures(exported: "Sequence[Exported | ExportedLanguage]") -> str:
    """Which variants failed their gates, and why; empty when none did."""
    from exporter.export import failures

    return failures(exported)


def export(request: "Request") -> "tuple[Exported | ExportedLanguage, ...]":
    """Export, or reuse the variants that the same request made before; writes `variants.md`, also when it fails."""
    need("train", "torch", "transformers", "onnx", "onnxscript", "optimum")
    need("cpu", "onnxruntime")
    from artifact.run_folder import RunFolder
    from exporter.export import export as export_one_pass
    from exporter.language.export import export_language
    from report.files import write_variants

    try:
        with _progress() as bar:
            return export_language(request, bar) if request.is_language else export_one_pass(request, bar)
    finally:
        write_variants(RunFolder(request.out))


def compare(
    model: Path,
    examples: "Examples",
    out: Path | None,
    *,
    named: tuple[str, ...] | None = None,
    runtimes: tuple[str, ...] | None = None,
    precisions: tuple[Precision, ...] | None = None,
    batch_sizes: tuple[int, ...] | None = None,
    lengths: str | None = None,
    threads: int | None = None,
    calibration: Path | None = None,
    plan: Plan,
    policy: "Policy | None" = None,
) -> "tuple[Verdict, RunFolder]":
    """Measure what is missing, and write verdict and report into `out` (the run itself by default).

    `named` are the candidates by name, or `("all",)` for every one with the options that are worth a measurement.
    `calibration` holds the training texts for candidates that are made while loading (default: the run's).
    """
    from artifact.run_folder import RunFolder, claim_output
    from commands.reading import read_run
    from measure.compare import Comparison
    from measure.compare import compare as measure
    from measure.source import find_models
    from measure.workload import parse_lengths, usual_lengths
    from report.files import write_verdict
    from report.policy import Policy
    from runtimes.registry import REFERENCE, candidates, is_calibrated, known_candidate, unable, worthwhile

    source = find_models(model)
    if out is None and not RunFolder(model).is_run:
        raise UserError(f"{model} is not a run, so the results need a folder of their own", "name one with --out")
    if source.hears and lengths is not None:
        raise UserError("--lengths is given, and all recordings are filled up to the same one", "leave it out")
    if source.image is not None and (lengths or calibration):
        flag = "--lengths" if lengths else "--calibration"
        raise UserError(f"{flag} is given, and it is about texts; this model takes pictures", "leave it out")
    run = claim_output(out or model)
    if named and named != EVERY:
        if runtimes or precisions:
            raise UserError("--candidates names what is compared, and --runtimes or --precisions too", "give one")
        asked = tuple(dict.fromkeys(known_candidate(name, language=source.writes) for name in named))
    else:
        asked = candidates(runtimes, precisions, every=named == EVERY, language=source.writes)
        if precisions is None:
            asked = tuple(candidate for candidate in asked if source.offers(candidate)) or asked
        asked = worthwhile(asked, language=source.writes) if named else asked
    if source.checkpoint and REFERENCE not in asked:
        asked = (REFERENCE, *asked)  # every figure is against it
    training = calibration or RunFolder(model).training_data
    is_needed = any(map(is_calibrated, asked)) and source.image is None and (calibration or training.is_file())
    comparison = Comparison(
        source=source,
        examples=examples,
        candidates=asked,
        batch_sizes=batch_sizes or (BATCH_SIZES_OF_LANGUAGE if source.writes else BATCH_SIZES),
        lengths=()
        if source.image
        else parse_lengths(lengths or usual_lengths(source.text_limits.max_length_tokens, writes=source.writes)),
        plan=plan,
        measurements=run.measurements,
        reference=run.reference,
        threads=threads,
        calibration=read_run(source, training) if is_needed else (),
        unable=() if named and named != EVERY else unable(runtimes, language=source.writes),
    )
    run.begin()
    with _progress() as bar:
        measure(comparison, bar)
    return write_verdict(run, policy or Policy()), run


def load_test(
    model: Path,
    named: tuple[str, ...] | None,
    data: Path | None,
    out: Path | None,
    *,
    scenarios: str,
    duration_s: float,
    max_p99_ms: float,
    rate_per_s: float | None = None,
    max_batch: int = 8,
    threads: int | None = None,
    columns: tuple[str | None, ...] = (),
) -> "tuple[LoadReport, RunFolder]":
    """Run the tests that are missing, and write `load.md` into `out` (default: the run), also when interrupted.

    `named` are the candidates; by default the one that the run's verdict recommends.
    """
    need("loadgen", "mlperf_loadgen")
    from artifact.run_folder import RunFolder, claim_output
    from commands.reading import read_run
    from measure.open_loop import LoadTask
    from measure.open_loop import load_test as measure
    from measure.source import find_models
    from measure.traffic import parse_scenarios
    from report.files import write_load
    from runtimes.registry import is_calibrated, known_candidate

    folder = RunFolder(model)
    source = find_models(model)
    if out is None and not folder.is_run:
        raise UserError(f"{model} is not a run, so the results need a folder of their own", "name one with --out")
    if source.writes:
        raise UserError("load tests are for models that answer in one pass so far", "compare measures language models")
    source.decided()
    if source.image is not None:
        raise UserError("load tests are for models that read texts so far", "compare measures models that see")
    data = data or folder.evaluation_data
    if not data.is_file() and data == folder.evaluation_data:
        raise UserError(f"{model} has no evaluation data of its own", "name a file with --data")
    candidates = tuple(dict.fromkeys(known_candidate(name) for name in named or (_recommended(folder),)))
    calibrated = any(is_calibrated(candidate) for candidate in candidates) and folder.training_data.is_file()
    run = claim_output(out or model)
    task = LoadTask(
        source=source,
        texts=read_run(source, data, columns),
        data=data.name,
        candidates=candidates,
        scenarios=parse_scenarios(scenarios),
        duration_s=duration_s,
        bound_s=max_p99_ms / 1e3,
        max_batch=max_batch,
        records=run.load,
        rate_per_s=rate_per_s,
        threads=threads,
        calibration=read_run(source, folder.training_data) if calibrated else (),
    )
    run.begin()
    try:
        with _progress() as bar:
            measure(task, bar)
    finally:
        report = write_load(run)
    if report is None:
        raise RuntimeError("a load test notes its session")
    return report, run


def _recommended(run: "RunFolder") -> str:
    """The candidate that a run's verdict recommends to deploy."""
    from artifact.records import read_if_present
    from report.verdict import Verdict

    verdict = read_if_present(run.verdict, Verdict)
    if verdict is None or verdict.deployable is None:
        why = "recommends no candidate" if verdict else "was not compared, so no candidate is recommended"
        raise UserError(f"{run.directory} {why}", "name one with --candidate, such as --candidate ort-cpu/fp32")
    return verdict.deployable


def pack(
    run: "RunFolder",
    out: Path,
    candidate: str | None = None,
    precision: Precision | None = None,
    extras: Extras = PLAIN,
) -> "Packed":
    """Pack the recommended candidate, or the named one, with its benchmark card; or a variant without one."""
    need("cpu", "onnxruntime")
    from artifact.pack import pack as pack_one_pass
    from artifact.pack_language import pack_language
    from artifact.variant import task_of

    make_artifact = pack_language if task_of(run) in WRITES else pack_one_pass
    if precision is not None:
        reason = "it was packed by its precision, without a comparison"
        return make_artifact(run, precision, out, card=None, card_reason=reason, extras=extras)
    from artifact.predict.session import SessionConfig
    from measure.source import find_models
    from report.choice import choose, make_card
    from report.files import read_verdict
    from runtimes.options import parse_options
    from runtimes.registry import entry, known_candidate

    verdict = read_verdict(run)
    row = choose(verdict, candidate)
    chosen = known_candidate(row.name)
    if find_models(run.directory).model_sha256(chosen) != row.model_sha256:
        raise UserError(f"{row.name} was exported again after it was measured", "compare again, then pack")
    session = parse_options(entry(chosen.runtime).options, chosen.options)
    if not isinstance(session, SessionConfig):
        raise UserError(f"{row.name} cannot be packed: its engine is not onnxruntime", "pack another candidate")
    return make_artifact(
        run,
        chosen.precision,
        out,
        card=make_card(verdict, row),
        card_reason=None,
        session=session,
        extras=extras,
    )


def verify(artifact: Path) -> "Verified":
    """Check an artifact on this machine."""
    need("cpu", "onnxruntime")
    from artifact.generate.manifest import generates
    from artifact.verify import check_is_artifact
    from artifact.verify import verify as confirm
    from artifact.verify_language import verify_language
    from measure.machine import read_machine

    check_is_artifact(artifact)
    machine = read_machine()
    confirmed = verify_language if generates(artifact) else confirm
    return confirmed(artifact, machine.cpu_model, machine.cpu_features)


def predict(
    artifact: Path,
    items: list[str],
    data: Path | None,
    out: Path | None,
    columns: tuple[str | None, str | None],
    kept: list[str],
    top_k: int | None,
    threshold: float,
    *,
    threads: int | None,
    as_json: bool,
) -> Iterator[str]:
    """Lines to print: an answer for each item, as soon as it is known, or how many went into `out`."""
    need("cpu", "onnxruntime")
    from artifact.predict.command import answer_lines, asked_items
    from artifact.predict.folder import MANIFEST
    from artifact.predict.predictor import Predictor
    from artifact.predict.program import told_on_terminal
    from artifact.predict.rows import ItemColumns
    from artifact.predict.stream import Wanted, predict_file

    if not (artifact / MANIFEST).is_file():
        raise UserError(f"{artifact} is not an artifact: it has no {MANIFEST}", "make one with: steelyard pack")
    if items and data:
        raise UserError("both ITEM and --data are given", "give one of them")
    if out and not data:
        raise UserError("--out is given, and no --data", "name the file whose rows are answered")
    wanted = Wanted(columns=ItemColumns(*columns), kept=tuple(kept), top_k=top_k, threshold=threshold)
    predictor = Predictor.open(artifact, threads=threads)
    if data and out:
        with told_on_terminal() as told:
            rows = predict_file(predictor, data, out, wanted, told)
        yield json.dumps({"rows": rows, "out": str(out)}) if as_json else f"{rows:,} answers in {out}"
        return
    asked = asked_items(predictor, items, data, wanted.columns)
    yield from answer_lines(predictor, asked, wanted, as_json=as_json)


def need(extra: str, *packages: str) -> None:
    """Raise `UserError` when an extra that this command needs is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}, which is not installed", f"pip install 'steelyard[{extra}]'")


def _progress() -> "ProgressBar":
    from report.terminal import ProgressBar

    return ProgressBar()
