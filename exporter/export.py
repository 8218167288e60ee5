"""From a checkpoint to a run's verified variants."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.golden import Golden, GoldenExample, largest_error
from artifact.identity import checkpoint_sha256
from artifact.precision import Precision
from artifact.predict import TextEncoder, usable_cores
from artifact.progress import Progress, silent
from artifact.records import fingerprint, read_if_present, sha256_file, write_json
from artifact.run_folder import RunFolder, claim_output
from artifact.session import SessionConfig, open_session
from artifact.tokenizer import text_encoder
from artifact.variant import SCHEMA_VERSION, Variant
from errors import GateFailed, UserError
from exporter.derive import DERIVATIONS, EXPORTED
from exporter.samples import SAMPLES
from models.checkpoint import Checkpoint, load_tokenizer, open_checkpoint

RECIPE = 2
"""Raised whenever the same checkpoint would give another graph, so that older variants are made again."""

PARITY_TEXTS = 200
PARITY_BATCH = 8
GOLDEN_EXAMPLES = 12
VERSIONED = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Exported:
    """A variant and whether it was made now (`False`: the same one was already there)."""

    variant: Variant
    path: Path
    made: bool


def export(
    checkpoint: Path,
    out: Path,
    precisions: Sequence[Precision],
    *,
    texts: Sequence[str] | None = None,
    progress: Progress = silent,
) -> tuple[Exported, ...]:
    """Trace a checkpoint once, derive every asked precision, and check each against PyTorch.

    Writes `variants/PRECISION/{model.onnx, variant.json}` and `golden.json` into the run folder `out`. `texts` are real
    inputs for the parity check (the first 200 are used). Variants that are there already and were made from the same
    inputs are kept. Raises `UserError` for a checkpoint that cannot be exported, and `GateFailed` after everything is
    written when a variant does not agree with PyTorch.
    """
    _check_precisions(precisions)
    run = claim_output(out)
    real = tuple(texts or SAMPLES)[:PARITY_TEXTS]
    source = checkpoint_sha256(checkpoint) if checkpoint.is_dir() else ""
    versions = {name: version(name) for name in VERSIONED}
    marks = {
        precision: fingerprint(
            {"recipe": RECIPE, "source": source, "precision": precision, "texts": real, "versions": versions}
        )
        for precision in (Precision.FP32, *precisions)
    }
    kept = {precision: variant for precision, mark in marks.items() if (variant := _kept(run, precision, mark))}
    golden = read_if_present(run.golden, Golden)
    if len(kept) < len(marks) or golden is None or golden.checkpoint_sha256 != source:
        job = _Job(open_checkpoint(checkpoint), run, real, versions, progress)
        run.begin()
        run.link_checkpoint(checkpoint)
        made = job.make(marks, kept)
    else:
        made = {}
    results = tuple(
        Exported(variant, run.variant(precision) / variant.file, precision in made)
        for precision in precisions
        if (variant := made.get(precision) or kept.get(precision))
    )
    failed = [result.variant for result in results if not result.variant.parity.passed]
    if failed:
        raise GateFailed(
            "; ".join(f"{variant.precision}: {', '.join(variant.parity.reasons)}" for variant in failed),
            f"variant.json in {run.directory / 'variants'} has the figures; leave that precision out with --precisions",
        )
    return results


def _check_precisions(precisions: Sequence[Precision]) -> None:
    unknown = [precision for precision in precisions if precision not in EXPORTED]
    if unknown or not precisions:
        raise UserError(
            f"--precisions names {', '.join(unknown) or 'nothing'}, which cannot be exported",
            f"choose from: {', '.join(EXPORTED)}",
        )


def _kept(run: RunFolder, precision: Precision, mark: str) -> Variant | None:
    """A variant made earlier from the same inputs, if its file is still whole."""
    variant = read_if_present(run.variant(precision) / "variant.json", Variant)
    if variant is None or variant.fingerprint != mark:
        return None
    path = run.variant(precision) / variant.file
    return variant if path.is_file() and sha256_file(path) == variant.sha256 else None


@dataclass(frozen=True, slots=True)
class _Job:
    """One export from its checkpoint to its records."""

    checkpoint: Checkpoint
    run: RunFolder
    texts: tuple[str, ...]
    versions: dict[str, str]
    progress: Progress

    def make(self, marks: dict[Precision, str], kept: dict[Precision, Variant]) -> dict[Precision, Variant]:
        from exporter.reference import TorchReference

        todo = [precision for precision in marks if precision not in kept]
        total = len(todo) + 2
        self.progress("export", 0, total, "reference answers from PyTorch")
        encoder = text_encoder(self.checkpoint.directory, self.checkpoint.limits)
        _check_tokenizer(self.checkpoint, encoder, (*self.texts, *SAMPLES))
        torch_model = TorchReference(self.checkpoint)
        reference = torch_model.answers(_batches(encoder, self.texts, torch_model.input_names))
        golden = self._write_golden(encoder, torch_model)
        made = {}
        for done, precision in enumerate(todo, start=1):
            self.progress("export", done, total, f"{precision}")
            started = time.perf_counter()
            path = self.run.variant(precision) / "model.onnx"
            self._write_graph(precision, path)
            made[precision] = self._record(precision, path, marks[precision], reference, golden, started)
        self.progress("export", total, total)
        return made

    def _write_graph(self, precision: Precision, path: Path) -> None:
        if precision in DERIVATIONS:
            DERIVATIONS[precision](self.run.variant(Precision.FP32) / "model.onnx", path)
        else:
            from exporter.trace import save_graph, trace

            save_graph(trace(self.checkpoint.directory), path)

    def _record(
        self, precision: Precision, path: Path, mark: str, reference: Any, golden: Golden, started: float
    ) -> Variant:
        from exporter.inspect import inspect_graph
        from exporter.parity import check_parity

        facts = inspect_graph(path)
        if precision in DERIVATIONS and facts.quantized_weights_fraction == 0:
            raise GateFailed(f"{path} is called {precision}, but nothing in it was quantised")
        session = open_session(path, provider="CPUExecutionProvider", threads=usable_cores(), config=SessionConfig())
        names = [spec.name for spec in facts.inputs]

        def answer(batch: Any) -> NDArray[np.float32]:
            return np.asarray(session.run(["logits"], {name: batch[name] for name in names})[0])

        parity = check_parity(answer, reference, precision)
        variant = Variant(
            schema_version=SCHEMA_VERSION,
            fingerprint=mark,
            checkpoint_sha256=self.checkpoint.sha256,
            precision=precision,
            file=path.name,
            size_bytes=sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
            sha256=sha256_file(path),
            opset=facts.opset,
            ir_version=facts.ir_version,
            domains=facts.domains,
            inputs=facts.inputs,
            outputs=facts.outputs,
            nodes=facts.nodes,
            operators=facts.operators,
            weight_elements=facts.weight_elements,
            quantized_weights_fraction=facts.quantized_weights_fraction,
            parity=parity,
            golden_max_error=largest_error(answer, golden, names) if parity.passed else parity.max_error,
            seconds=time.perf_counter() - started,
            versions=self.versions,
        )
        write_json(path.parent / "variant.json", variant)
        return variant

    def _write_golden(self, encoder: TextEncoder, torch_model: Any) -> Golden:
        """Examples over the whole range of lengths, each answered by the reference alone."""
        encoded = encoder.encode(self.texts)
        by_length = sorted(range(len(encoded)), key=lambda row: len(encoded[row]["input_ids"]))
        picks = np.linspace(0, len(by_length) - 1, min(GOLDEN_EXAMPLES, len(by_length))).round().astype(int)
        examples = []
        for row in dict.fromkeys(by_length[pick] for pick in picks):
            logits = torch_model.run(encoder.pad([encoded[row]], torch_model.input_names))[0]
            examples.append(
                GoldenExample(
                    text=self.texts[row],
                    input_ids=tuple(encoded[row]["input_ids"]),
                    logits=tuple(float(value) for value in logits),
                )
            )
        golden = Golden(
            schema_version=SCHEMA_VERSION,
            checkpoint_sha256=self.checkpoint.sha256,
            tolerance=0.0,
            examples=tuple(examples),
        )
        write_json(self.run.golden, golden)
        return golden


def _check_tokenizer(checkpoint: Checkpoint, encoder: TextEncoder, texts: Sequence[str]) -> None:
    """Refuse a tokenizer that gives other ids here than in transformers, as one whose two files disagree does."""
    theirs = load_tokenizer(checkpoint.directory)(
        list(texts), truncation=True, max_length=checkpoint.limits.max_length_tokens
    )["input_ids"]
    for text, ours, expected in zip(texts, encoder.encode(texts), theirs, strict=True):
        if ours["input_ids"] != expected:
            raise UserError(
                f"{checkpoint.directory / 'tokenizer.json'} gives the ids {ours['input_ids'][:8]} for '{text[:40]}', "
                f"transformers gives {expected[:8]}",
                "save the tokenizer again with AutoTokenizer.from_pretrained(…).save_pretrained(folder)",
            )


def _batches(encoder: TextEncoder, texts: Sequence[str], names: Sequence[str]) -> list[dict[str, NDArray[np.int64]]]:
    """The texts in their order, eight to a batch, each batch padded to its longest."""
    encoded = encoder.encode(texts)
    return [encoder.pad(encoded[start : start + PARITY_BATCH], names) for start in range(0, len(encoded), PARITY_BATCH)]
