"""Make the folder that is deployed: ONNX, tokenizer, manifest, golden examples and one `predict.py`."""

from dataclasses import dataclass, replace
from pathlib import Path

from artifact.bundle import bundle
from artifact.companions import special_tokens_map, tokenizer_config
from artifact.contents import copy_documents, copy_graphs, packable, write_program
from artifact.labels import read_activation, read_labels
from artifact.layout import PLAIN, Extras, Layout
from artifact.model_card import model_card
from artifact.placing import Packed, check_target, packed_files, placed
from artifact.pooling import asking_for
from artifact.precision import Precision
from artifact.predict.card import Card
from artifact.predict.cores import usable_cores
from artifact.predict.folder import MANIFEST, PackedFile
from artifact.predict.golden import Golden
from artifact.predict.manifest import SCHEMA_VERSION, Manifest, read_manifest
from artifact.predict.predictor import Predictor
from artifact.predict.reads import Reads
from artifact.predict.session import SessionConfig
from artifact.records import read_json, write_bytes, write_json
from artifact.run_folder import RunFolder
from artifact.sentences import declared_pooling
from artifact.serving import Serving
from artifact.task import ANSWERS, Activation, Task
from artifact.tokenizer import plain_tokenizer_json
from artifact.triton import as_triton
from artifact.variant import Variant, read_variant
from errors import GateFailed, UserError

RUNTIME_PACKAGES = ("onnxruntime", "numpy", "tokenizers")
COPIED = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
LABELLED = (Task.TEXT_CLASSIFICATION, Task.TOKEN_CLASSIFICATION, Task.IMAGE_CLASSIFICATION, Task.AUDIO_CLASSIFICATION)
REFERENCE = "PyTorch fp32 on a CPU, each example alone"
LEAST_TOLERANCE = 1e-4
"""Share of an output's scale that other CPUs' rounding is given at least."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything that goes into one artifact."""

    variant: Variant
    graph: Path
    checkpoint: Path
    reads: Reads
    serving: Serving
    golden: Golden
    session: SessionConfig
    card: Card | None
    card_reason: str | None


def pack(
    run: RunFolder,
    precision: Precision,
    out: Path,
    *,
    card: Card | None,
    card_reason: str | None,
    session: SessionConfig | None = None,
    extras: Extras = PLAIN,
) -> Packed:
    """Pack one variant of a run into the folder `out`, then load it and run its own self-test.

    The folder appears whole or not at all; an artifact that is already there is replaced. Raises `UserError` when
    something it needs is missing, its items cannot be prepared without transformers, or `out` holds anything but an
    artifact; `GateFailed` when the variant did not pass its export, or the packed model does not give the reference's
    answers.
    """
    check_target(out)
    served = replace(session or SessionConfig(), memory_pattern=False)  # real texts seldom repeat a shape; a plan stays
    parts = _parts(run, precision, card, card_reason, served)
    with placed(out) as folder:
        _fill(folder, parts, extras)
        _prove(folder)
        if extras.layout is Layout.TRITON:
            as_triton(folder, out.name, read_manifest(folder), parts.variant)
    return Packed.of(out, precision)


def _parts(
    run: RunFolder, precision: Precision, card: Card | None, card_reason: str | None, session: SessionConfig
) -> Parts:
    """What an artifact of this variant is made of; `UserError` for what is missing or cannot be served."""
    variant, graph = read_variant(run, precision)
    checkpoint = packable(run, variant, graph)
    serving = read_json(run.serving, Serving)
    if serving.refused is not None or serving.reads is None:
        raise UserError(
            f"{graph} cannot be packed: {serving.refused or 'nothing says what an item is'}",
            "serve the graph with onnxruntime; variant.json describes its inputs and outputs",
        )
    if variant.task is Task.FEATURE_EXTRACTION and len(variant.outputs[0].shape) != 2:
        raise UserError(
            f"{graph} gives a vector for each token, not for each text",
            f"export it again with {asking_for(declared_pooling(checkpoint))}",
        )
    golden = read_json(run.golden, Golden)
    if not golden.checkpoint_sha256 == serving.checkpoint_sha256 == variant.checkpoint_sha256:
        raise UserError(f"{run.golden} is of another state of the checkpoint than {graph}", "export again")
    return Parts(
        variant=variant,
        graph=graph,
        checkpoint=checkpoint,
        reads=serving.reads,
        serving=serving,
        golden=golden,
        session=session,
        card=card,
        card_reason=card_reason,
    )


def _fill(folder: Path, parts: Parts, extras: Extras) -> None:
    variant, checkpoint = parts.variant, parts.checkpoint
    model_file = copy_graphs(variant, parts.graph.parent, folder)[variant.file]
    copy_documents(checkpoint, folder, COPIED)
    if parts.serving.limits is not None:
        write_bytes(folder / "tokenizer.json", plain_tokenizer_json(checkpoint).encode())
        write_json(folder / "tokenizer_config.json", tokenizer_config(checkpoint, parts.serving.limits))
        write_json(folder / "special_tokens_map.json", special_tokens_map(checkpoint))
    packages = (*RUNTIME_PACKAGES, *(("pillow",) if parts.serving.image else ()))
    write_program(folder, bundle(), packages, extras)
    manifest = _manifest(parts, model_file)
    write_bytes(folder / "README.md", model_card(manifest, checkpoint, variant.parity.invariance).encode())
    write_json(folder / "golden.json", _golden(folder, parts, manifest))
    write_json(folder / MANIFEST, replace(manifest, files=dict(packed_files(folder))))


def _manifest(parts: Parts, model_file: str) -> Manifest:
    """The manifest, with no file in it yet but those that it cannot do without."""
    variant, serving, checkpoint = parts.variant, parts.serving, parts.checkpoint
    unknown = PackedFile(size_bytes=0, sha256="")
    return Manifest(
        schema_version=SCHEMA_VERSION,
        task=variant.task,
        reads=parts.reads,
        labels=read_labels(checkpoint) if variant.task in LABELLED else (),
        activation=_activation(variant.task, checkpoint),
        precision=variant.precision,
        model_file=model_file,
        outputs=ANSWERS[variant.task].outputs
        if variant.task is not Task.FEATURE_EXTRACTION
        else (variant.outputs[0].name,),
        limits=serving.limits,
        image=serving.image,
        sound=serving.sound,
        mask_id=serving.mask_id,
        session=parts.session,
        opset=variant.opset,
        ir_version=variant.ir_version,
        domains=variant.domains,
        minimum_onnxruntime=variant.minimum_onnxruntime,
        reference=REFERENCE,
        card=parts.card,
        card_reason=parts.card_reason,
        versions=variant.versions,
        files=dict.fromkeys((model_file, "config.json", "golden.json", "tokenizer.json"), unknown),
    )


def _activation(task: Task, checkpoint: Path) -> Activation:
    """What turns logits into scores: for a text or a recording as its configuration says, for all else a choice."""
    if task in (Task.TEXT_CLASSIFICATION, Task.AUDIO_CLASSIFICATION, Task.IMAGE_CLASSIFICATION):
        return read_activation(checkpoint)
    return Activation.NONE if task is Task.FEATURE_EXTRACTION else Activation.SOFTMAX


def _golden(folder: Path, parts: Parts, manifest: Manifest) -> Golden:
    """The run's golden examples with a tolerance for this variant.

    The tolerance of an output is twice the largest error on these very examples (other CPUs round differently), and at
    least 0.01 % of its scale. Raises `GateFailed` when an example's inputs come out otherwise, or that error is beyond
    what the export saw.
    """
    variant = parts.variant
    problems, observed = Predictor(folder, manifest, usable_cores()).golden_errors(parts.golden)
    if problems:
        raise GateFailed(f"{parts.graph} cannot be packed: {problems[0]}", "export it again with these versions")
    seen = max(variant.parity.max_error_fraction, variant.golden_error_fraction or 0.0)
    tolerance = {}
    for name, error in observed.items():
        scale = variant.parity.scales[name]
        if not error <= max(1.5 * seen, LEAST_TOLERANCE) * scale:
            raise GateFailed(
                f"{parts.graph} is off by {error:.3g} on the golden examples; its export saw {seen * scale:.3g}",
                "export it again on this machine",
            )
        tolerance[name] = max(2 * error, LEAST_TOLERANCE * scale)
    return replace(parts.golden, tolerance=tolerance)


def _prove(folder: Path) -> None:
    try:
        problems = Predictor.open(folder).selftest()
    except GateFailed as error:
        raise GateFailed(f"the packed model does not load: {error.message}", error.hint) from error
    if problems:
        raise GateFailed(f"the packed model differs from the reference: {problems[0]}", "pack another candidate")
