"""What can be measured in a folder: a run, an artifact or a bare checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from artifact.generate.encoder import encoder_of
from artifact.generate.manifest import LanguageManifest, generates, read_language_manifest
from artifact.identity import checkpoint_sha256
from artifact.judged import Judged, judged_of
from artifact.labels import read_activation, read_labels, read_task
from artifact.language import GGUF, GGUF_RECORD, GgufFile, LanguageVariant, Reading
from artifact.pooling import POOLED, Pooling, asking_for
from artifact.precision import Precision
from artifact.predict.folder import MANIFEST, check_files, inside
from artifact.predict.graph_file import check_graph
from artifact.predict.images import ImageSettings
from artifact.predict.manifest import read_manifest
from artifact.predict.reads import Reads
from artifact.predict.tokens import TextEncoder, TextLimits
from artifact.records import read_if_present, read_json, sha256_files
from artifact.run_folder import RunFolder
from artifact.sentences import declared_pooling, gives_vectors, sentence_limits
from artifact.serving import Serving
from artifact.task import ANSWERS, WRITES, Task
from artifact.tokenizer import read_config, read_limits
from artifact.variant import Variant, task_of
from errors import GateFailed, UserError
from measure.workload import tokenizing
from runtimes.base import LOGITS, Candidate, Head
from runtimes.registry import Source, entry

EXTERNAL_DATA = "*.onnx_data"

AS_STORED = (Precision.FP32, Precision.INT8_DYNAMIC, Precision.INT4)
"""What an engine for CPUs computes with as its file has it."""

REWRITES = "an encoder-decoder, and compare knows how those begin from their export alone"
JUDGED_ELSEWHERE = "export judges it: see variants.md; pack it with --precision"
EXPORT_FIRST = "steelyard export it, then compare the run"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The models of one folder: a checkpoint for PyTorch, graphs and GGUF files for the others, one tokenizer for all.
    What `writes` is a language model; `reading` is about one behind an encoder. Of other models `task`, `head` and
    `judged` say what they answer, and what of it is right or wrong (`None`: nothing, or that is not known); one that
    was exported for pairs of texts is `paired`. One that sees has `image`, how pictures become its input, and neither
    tokenizer nor limits."""

    directory: Path
    tokenizer: Path
    labels: tuple[str, ...]
    limits: TextLimits | None
    checkpoint: Path | None
    graphs: Mapping[Precision, Path]
    rejected: Mapping[Precision, str]
    writes: bool = False
    reading: Reading | None = None
    ggufs: Mapping[Precision, Path] = field(default_factory=dict)
    task: Task | None = None
    judged: Judged | None = None
    paired: bool = False
    head: Head = LOGITS
    image: ImageSettings | None = None

    @property
    def text_limits(self) -> TextLimits:
        """How many tokens are read, and how rows are filled."""
        if self.limits is None:
            raise RuntimeError("a model that sees has no limits of texts")
        return self.limits

    def encoder(self) -> TextEncoder:
        """What makes token ids of texts."""
        return tokenizing(self.tokenizer, self.text_limits, self.judged)

    def decided(self) -> Judged:
        """What of an answer is right or wrong. Raises `UserError` for a model that decides nothing."""
        if self.judged is None:
            what, hint = "no model whose answers are right or wrong", JUDGED_ELSEWHERE
            if self.task is Task.FEATURE_EXTRACTION:
                what = "a model that gives a vector for each token, not for each text"
                hint = f"export it with {asking_for(declared_pooling(self.checkpoint or self.directory))}"
            elif self.task is Task.TEXT_CLASSIFICATION:
                what = "a model that answers with several quantities"
            elif self.task:
                what = f"a model for {self.task}"
            raise UserError(f"{self.directory} holds {what}, and such are not compared so far", hint)
        return self.judged

    @property
    def hears(self) -> bool:
        """Whether recordings are read."""
        return self.reading is not None and self.reading.sound is not None

    def model(self, candidate: Candidate) -> Path:
        """What a candidate loads. Raises `UserError` when this folder does not have it."""
        language = entry(candidate.runtime).language
        if self.reading is not None and language and language.decoders_alone:
            raise UserError(
                f"{candidate.runtime} runs decoders alone so far, and this model has an encoder", "leave it out"
            )
        if entry(candidate.runtime).source is Source.CHECKPOINT:
            if self.checkpoint is None:
                raise UserError(
                    f"{self.directory} has no checkpoint for {candidate.runtime}", "compare the run instead"
                )
            return self.checkpoint
        precision = entry(candidate.runtime).graph(candidate)
        if entry(candidate.runtime).source is Source.GGUF:
            if precision not in self.ggufs:
                raise UserError(
                    f"{self.directory} has no {precision} file for llama.cpp",
                    "export it as before, and with --gguf",
                )
            return self.ggufs[precision]
        if precision in self.rejected:
            raise UserError(
                f"the {precision} variant is not used: {self.rejected[precision]}", "leave it out, or export it again"
            )
        if precision not in self.graphs:
            raise UserError(
                f"{self.directory} has no {precision} variant",
                f"steelyard export {self.directory} --precisions {precision} --out {self.directory}",
            )
        return self.graphs[precision]

    def offers(self, candidate: Candidate) -> bool:
        """Whether something was made for a candidate, be it good enough or not."""
        where = entry(candidate.runtime)
        made = self.ggufs if where.source is Source.GGUF else {*self.graphs, *self.rejected}
        return where.source is Source.CHECKPOINT or where.graph(candidate) in made

    def model_files(self, candidate: Candidate) -> list[Path]:
        """The weight files of a candidate."""
        model = self.model(candidate)
        if model.is_dir():
            return sorted(model.glob("*.safetensors"))
        if entry(candidate.runtime).source is Source.GGUF:
            return [model]
        beside = [encoder_of(model)] if self.reading is not None else []
        return [*beside, model, *model.parent.glob(EXTERNAL_DATA)]

    def model_sha256(self, candidate: Candidate) -> str:
        """Hash of a candidate's weight files, and of the configuration that says how a checkpoint uses them."""
        configuration = self.model(candidate) / "config.json"
        return sha256_files([*self.model_files(candidate), *([configuration] if configuration.is_file() else [])])

    def model_bytes(self, candidate: Candidate) -> int:
        """Size of a candidate's weight files."""
        return sum(path.stat().st_size for path in self.model_files(candidate))

    def step_bytes(self, candidate: Candidate) -> int | None:
        """Bytes of weights that a language model needs for each token it writes, as its file has them; `None` where
        that cannot be told: of checkpoints and 16 bits, which may be converted as they are loaded, and of
        encoder-decoders. A table of tokens that the head does not share is counted too, though one row of it is read.
        """
        where = entry(candidate.runtime)
        is_as_stored = candidate.precision in AS_STORED and where.graph(candidate) is candidate.precision
        if where.source is Source.CHECKPOINT or not is_as_stored or not self.writes or self.reading is not None:
            return None
        return self.model_bytes(candidate)


def find_models(directory: Path) -> ModelSource:
    """Look at a folder and say what can be measured in it.

    Raises `UserError` when it is neither a run, nor an artifact, nor a checkpoint.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist or is not a folder", "give a run, a checkpoint or an artifact")
    if (directory / MANIFEST).is_file():
        return _packed_language(directory) if generates(directory) else _packed(directory)
    run = RunFolder(directory)
    task = task_of(run)
    ggufs: dict[Precision, Path] = {}
    if run.is_run:
        checkpoint = run.checkpoint
        if checkpoint is None or not checkpoint.is_dir():
            raise UserError(f"{directory} is a run without a checkpoint", "export again from the checkpoint")
        source = checkpoint_sha256(checkpoint)
        graphs, rejected = _variants(run, source)
        ggufs = _ggufs(run, source)
    elif (directory / "config.json").is_file():
        checkpoint, graphs, rejected = directory, {}, {}
        task = Task.FEATURE_EXTRACTION if gives_vectors(directory) else None
    else:
        raise UserError(
            f"{directory} is neither a run, nor a checkpoint, nor an artifact",
            "give a folder written by steelyard finetune, export or pack, or by save_pretrained",
        )
    if task is None and _rewrites(checkpoint):
        raise UserError(f"{directory} holds {REWRITES}", EXPORT_FIRST)
    writes = _continues_text(checkpoint) if task is None else task in WRITES
    labels, task = read_labels(checkpoint), task if task or writes else read_task(checkpoint)
    serving = read_if_present(run.serving, Serving)
    limits = None if task is Task.IMAGE_CLASSIFICATION else read_limits(checkpoint)
    if writes:
        return ModelSource(directory, checkpoint, (), limits, checkpoint, graphs, rejected, True, _reading(run), ggufs)
    judged = judged_of(task, read_activation(checkpoint), len(labels)) if task else None
    head = Head(ANSWERS[task].outputs) if task else LOGITS
    if task is Task.FEATURE_EXTRACTION:
        pooling = _pooling(run, graphs) if run.is_run else declared_pooling(checkpoint)
        judged, head = judged if pooling else None, Head((POOLED,), pooling)
        limits = sentence_limits(checkpoint)
    image = _image(directory, serving) if task is Task.IMAGE_CLASSIFICATION else None
    return ModelSource(
        directory,
        checkpoint,
        labels,
        limits,
        checkpoint,
        graphs,
        rejected,
        task=task,
        judged=judged,
        head=head,
        paired=serving is not None and serving.reads is Reads.PAIR,
        image=image,
    )


def _image(directory: Path, serving: Serving | None) -> ImageSettings:
    """How pictures become the input of a run's model, as its export found. Raises `UserError` where that is not known
    without transformers."""
    if serving is None:
        raise UserError(f"{directory} does not say how pictures become its input", EXPORT_FIRST)
    if serving.image is None:
        raise UserError(
            f"{directory} cannot be compared: its pictures are prepared by transformers alone ({serving.refused})",
            JUDGED_ELSEWHERE,
        )
    return serving.image


def _reading(run: RunFolder) -> Reading | None:
    """What an encoder-decoder's variants say of how it reads and begins; `None` for a decoder alone."""
    files = (run.variant(precision) / "variant.json" for precision in Precision)
    readings = (variant.reading for path in files if (variant := read_if_present(path, LanguageVariant)))
    return next((reading for reading in readings if reading), None)


def _continues_text(checkpoint: Path) -> bool:
    """Whether a checkpoint is a decoder's, by the name that transformers gives to such classes."""
    kinds = read_config(checkpoint, "config.json").get("architectures") or [""]
    return str(kinds[0]).endswith(("ForCausalLM", "LMHeadModel"))


def _pooling(run: RunFolder, graphs: Mapping[Precision, Path]) -> Pooling | None:
    """The pooling that a run's usable variants have in their graphs; `None` where they have none.

    Raises `UserError` where they pool in different ways, or where it was not recorded yet.
    """
    variants = [read_json(graph.parent / "variant.json", Variant) for graph in graphs.values()]
    poolings = {variant.pooling for variant in variants if variant.outputs[0].name == POOLED}
    if len(poolings) > 1 or None in poolings:
        raise UserError(
            f"{run.directory} has variants that pool in different ways, or none of them says how",
            "export all of them again with one --pooling",
        )
    return next(iter(poolings), None)


def _rewrites(checkpoint: Path) -> bool:
    """Whether a checkpoint is an encoder-decoder that writes text, by the same names."""
    config = read_config(checkpoint, "config.json")
    kinds = config.get("architectures") or [""]
    return bool(config.get("is_encoder_decoder")) and str(kinds[0]).endswith(("ForConditionalGeneration", "MTModel"))


def _packed(directory: Path) -> ModelSource:
    """What an artifact has, checked as if it came from a stranger."""
    try:
        manifest = read_manifest(directory)
        graph = inside(directory, manifest.model_file)
        if manifest.reads is Reads.SOUND:
            raise UserError(f"{directory} hears recordings, and such are not compared so far", JUDGED_ELSEWHERE)
        check_files(directory, manifest.graph_files)
        check_graph(graph, [Path(name).name for name in manifest.graph_files])
    except GateFailed as error:
        raise UserError(error.message, f"steelyard verify {directory}") from error
    return ModelSource(
        directory,
        directory,
        manifest.labels,
        manifest.limits,
        None,
        {manifest.precision: graph},
        {},
        task=manifest.task,
        judged=judged_of(manifest.task, manifest.activation, len(manifest.labels)),
        head=Head(manifest.outputs),
        paired=manifest.reads is Reads.PAIR,
        image=manifest.image,
    )


def _packed_language(directory: Path) -> ModelSource:
    """What a language model's artifact has, checked as if it came from a stranger."""
    try:
        manifest = read_language_manifest(directory)
        check_files(directory, manifest.graph_files)
        for name in manifest.graphs:
            check_graph(inside(directory, name), [Path(file).name for file in manifest.graph_files])
        graph = inside(directory, manifest.model_file)
    except GateFailed as error:
        raise UserError(error.message, f"steelyard verify {directory}") from error
    graphs, reading = {manifest.precision: graph}, _packed_reading(manifest)
    return ModelSource(directory, directory, (), read_limits(directory), None, graphs, {}, True, reading)


def _packed_reading(manifest: LanguageManifest) -> Reading | None:
    if (packed := manifest.rewriting) is None:
        return None
    return Reading(
        encoder=packed.encoder_file,
        most_read_tokens=packed.most_read_tokens,
        start_ids=packed.start_ids,
        never_first_ids=packed.never_first_ids,
        end_ids=manifest.end_ids[:1] if packed.sound else (),
        sound=packed.sound,
    )


def _ggufs(run: RunFolder, source_sha256: str) -> dict[Precision, Path]:
    """llama.cpp's files of this state of the checkpoint."""
    found = {}
    for precision in Precision:
        folder = run.variant(precision)
        record = read_if_present(folder / GGUF_RECORD, GgufFile)
        if record is not None and record.checkpoint_sha256 == source_sha256 and (folder / GGUF).is_file():
            found[precision] = folder / GGUF
    return found


def _variants(run: RunFolder, source_sha256: str) -> tuple[dict[Precision, Path], dict[Precision, str]]:
    graphs, rejected = {}, {}
    writes = task_of(run) in WRITES
    for precision in Precision:
        folder = run.variant(precision)
        if (folder / "variant.json").is_file():
            path = folder / "variant.json"
            variant: Variant | LanguageVariant
            variant = read_json(path, LanguageVariant) if writes else read_json(path, Variant)
            if variant.checkpoint_sha256 != source_sha256:
                rejected[precision] = "it was exported from another state of the checkpoint"
            elif variant.passed:
                graphs[precision] = folder / variant.file
            else:
                rejected[precision] = f"it did not pass its export: {'; '.join(variant.reasons)}"
    return graphs, rejected
