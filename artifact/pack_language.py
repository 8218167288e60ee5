"""Make the folder that is deployed of a language model: one decoder graph, its tokenizer and `predict.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifact.bundle import bundle
from artifact.contents import copy_documents, copy_graphs, packable, write_program
from artifact.genai import GENAI_CONFIG, genai_config, is_for_genai
from artifact.generate.chat import ChatTemplate
from artifact.generate.generator import Generator
from artifact.generate.golden import GoldenTexts
from artifact.generate.manifest import LANGUAGE_SCHEMA_VERSION, Judged, LanguageManifest, Rewriting
from artifact.language import LanguageVariant, read_language
from artifact.language_card import language_card
from artifact.layout import PLAIN, Extras, Layout
from artifact.placing import Packed, check_target, packed_files, placed
from artifact.precision import Precision
from artifact.predict.card import Card
from artifact.predict.cores import usable_cores
from artifact.predict.folder import MANIFEST, PackedFile
from artifact.predict.golden import Sampled
from artifact.predict.session import SessionConfig
from artifact.records import read_json, write_bytes, write_json
from artifact.run_folder import RunFolder
from artifact.tokenizer import plain_tokenizer_json, read_config
from errors import GateFailed, UserError

ENTRY = "artifact.generate.command"
PACKAGES = ("onnxruntime", "numpy", "tokenizers", "jinja2")
COPIED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
REFERENCE = "this graph as it was packed, whose logits were compared with those of PyTorch fp32, each text alone"
SETTINGS = ("config.json", "generation_config.json")
LEAST_TOLERANCE = 1e-4
"""Share of the largest logit that other CPUs' rounding is given at least."""


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Everything that goes into one artifact."""

    variant: LanguageVariant
    graph: Path
    checkpoint: Path
    golden: GoldenTexts
    session: SessionConfig
    card: Card | None
    card_reason: str | None


def pack_language(
    run: RunFolder,
    precision: Precision,
    out: Path,
    *,
    card: Card | None,
    card_reason: str | None,
    session: SessionConfig | None = None,
    extras: Extras = PLAIN,
) -> Packed:
    """Pack one decoder of a run into the folder `out`, then load it and run its own self-test.

    The folder appears whole or not at all; an artifact that is already there is replaced. Raises `UserError` when
    something it needs is missing, its texts cannot be made without transformers, or `out` holds anything but an
    artifact; `GateFailed` when the variant did not pass its export, or the packed model does not give the reference's
    logits.
    """
    check_target(out)
    if extras.layout is not Layout.STEELYARD:
        raise UserError(f"--layout {extras.layout} is for models that answer in one pass", "leave it out")
    parts = _parts(run, precision, card, card_reason, session or SessionConfig())
    with placed(out) as folder:
        _fill(folder, parts, extras)
        if problems := Generator.open(folder).selftest():
            raise GateFailed(f"the packed model differs from what was packed: {problems[0]}", "pack it again")
    return Packed.of(out, precision)


def _parts(
    run: RunFolder, precision: Precision, card: Card | None, card_reason: str | None, session: SessionConfig
) -> _Parts:
    variant, graph = read_language(run, precision)
    checkpoint = packable(run, variant, graph)
    golden = read_json(run.golden, GoldenTexts)
    if golden.checkpoint_sha256 != variant.checkpoint_sha256:
        raise UserError(f"{run.golden} is of another state of the checkpoint than {graph}", "export again")
    return _Parts(
        variant=variant,
        graph=graph,
        checkpoint=checkpoint,
        golden=golden,
        session=replace(session, memory_pattern=False),  # lengths seldom repeat
        card=card,
        card_reason=card_reason,
    )


def _fill(folder: Path, parts: _Parts, extras: Extras) -> None:
    variant, checkpoint = parts.variant, parts.checkpoint
    graphs = copy_graphs(variant, parts.graph.parent, folder)
    copy_documents(checkpoint, folder, COPIED)
    write_bytes(folder / "tokenizer.json", plain_tokenizer_json(checkpoint).encode())
    write_program(folder, bundle(ENTRY), PACKAGES, extras)
    manifest = _manifest(parts, graphs)
    config = read_config(checkpoint, "config.json")
    if is_for_genai(variant):
        told = genai_config(config, variant.cache, variant.sizes, manifest.model_file, manifest.end_ids)
        write_json(folder / GENAI_CONFIG, told)
    write_bytes(folder / "README.md", language_card(manifest, variant, checkpoint).encode())
    write_json(folder / "golden.json", _golden(folder, parts, manifest))
    write_json(folder / MANIFEST, replace(manifest, files=dict(packed_files(folder))))


def _manifest(parts: _Parts, graphs: Mapping[str, str]) -> LanguageManifest:
    """The manifest, with no file in it yet but those that it cannot do without."""
    variant, unknown = parts.variant, PackedFile(size_bytes=0, sha256="")
    found, model_file = variant.prediction, graphs[variant.file]
    return LanguageManifest(
        schema_version=LANGUAGE_SCHEMA_VERSION,
        task=variant.task,
        precision=variant.precision,
        model_file=model_file,
        context_tokens=variant.cache.context_tokens,
        end_ids=end_ids(parts.checkpoint),
        never_ids=_never(_settings(parts.checkpoint)),
        rewriting=_rewriting(variant, graphs),
        chats=_chats(parts.checkpoint),
        judged=Judged(
            inputs=found.inputs,
            texts=found.texts,
            tokens=found.tokens,
            perplexity=found.perplexity,
            reference_perplexity=found.reference,
            ratio=found.perplexity_ratio.value,
            ratio_low=found.perplexity_ratio.low,
            ratio_high=found.perplexity_ratio.high,
            divergence_nats=found.divergence_nats.value,
            agreement_fraction=found.agreement_fraction.value,
        ),
        session=parts.session,
        opset=variant.opset,
        minimum_onnxruntime=variant.minimum_onnxruntime,
        reference=REFERENCE,
        card=parts.card,
        card_reason=parts.card_reason,
        versions=variant.versions,
        files=dict.fromkeys((*graphs.values(), "config.json", "golden.json", "tokenizer.json"), unknown),
    )


def _settings(checkpoint: Path) -> dict[str, Any]:
    """How a checkpoint generates: what `generation_config.json` says, and else `config.json`."""
    found = [read_config(checkpoint, name) for name in SETTINGS if (checkpoint / name).is_file()]
    return {name: value for settings in found for name, value in settings.items() if value is not None}


def end_ids(checkpoint: Path) -> tuple[int, ...]:
    """The tokens that end a text; there may be none."""
    value = _settings(checkpoint).get("eos_token_id", ())
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)


def _never(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens that a checkpoint never writes, by its `suppress_tokens` and those `bad_words_ids` that are one."""
    single = [ids[0] for ids in settings.get("bad_words_ids", ()) if len(ids) == 1]
    return tuple(sorted({*settings.get("suppress_tokens", ()), *single}))


def _rewriting(variant: LanguageVariant, graphs: Mapping[str, str]) -> Rewriting | None:
    reading = variant.reading
    if reading is None:
        return None
    return Rewriting(
        encoder_file=graphs[reading.encoder],
        most_read_tokens=reading.most_read_tokens,
        start_ids=reading.start_ids,
        never_first_ids=reading.never_first_ids,
        sound=reading.sound,
    )


def _chats(checkpoint: Path) -> bool:
    try:
        ChatTemplate.from_folder(checkpoint)
    except UserError:
        return False
    return True


def _golden(folder: Path, parts: _Parts, manifest: LanguageManifest) -> GoldenTexts:
    """The run's golden texts with the logits of this very graph, so that a self-test sees what changed since.

    Rounded weights are far from PyTorch's logits, and a tolerance as wide as that would hide a damaged layer. How much
    rounding other CPUs may do otherwise is known from the export: twice the difference between steps with the cache and
    one pass, at least 0.01 % of the largest logit. Raises `GateFailed` when a text's ids come out otherwise, or the
    error against PyTorch is beyond what the export saw.
    """
    generator = Generator(folder, manifest, usable_cores())
    problems, error = generator.golden_errors(parts.golden)
    if problems:
        raise GateFailed(f"{parts.graph} cannot be packed: {problems[0]}", "export it again with these versions")
    scale, seen = parts.golden.scale, parts.variant.golden_error_fraction
    if not error <= max(1.5 * seen, LEAST_TOLERANCE) * scale:
        raise GateFailed(
            f"{parts.graph} is off by {error:.3g} on the golden texts; its export saw {seen * scale:.3g}",
            "export it again on this machine",
        )
    own = (replace(item, logits=Sampled.of(generator.golden_logits(item))) for item in parts.golden.examples)
    tolerance = max(2 * parts.variant.continuation.cached_error_fraction, LEAST_TOLERANCE) * scale
    return replace(parts.golden, examples=tuple(own), tolerance=tolerance, reference_error=error)
