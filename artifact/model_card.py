"""`README.md` of an artifact: what it is, what it answers, its figures, where it comes from, and how it is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from artifact.judged import Judged, judged_of
from artifact.predict.card import Card
from artifact.predict.manifest import Manifest
from artifact.predict.reads import Reads
from artifact.task import Task
from artifact.variant import Invariance

EXAMPLES: Mapping[Reads, tuple[str, ...]] = {
    Reads.TEXT: ("A film to remember.",),
    Reads.WORDS: ("Ada Lovelace was born in London.",),
    Reads.PAIR: ("Who wrote it?", "Ada Lovelace wrote it."),
    Reads.IMAGE: ("picture.png",),
    Reads.SOUND: ("recording.wav",),
}
"""An item of each kind, as words on a command line."""
MOST_LABELS = 30


def model_card(manifest: Manifest, checkpoint: Path, invariance: Invariance | None) -> str:
    """The card in Markdown, with the front matter that model hubs read; `invariance` is what the export measured."""
    origin = front_matter(checkpoint)
    judged = judged_of(manifest.task, manifest.activation, len(manifest.labels)) or Judged.TEXT
    parts = [
        header_of(manifest.task, "[onnx, transformers.js]", origin),
        f"# {manifest.task}, {manifest.precision}, for CPUs without PyTorch",
        _summary(manifest),
        _use(manifest),
        _limits(manifest, invariance),
        figures_section(manifest.card, manifest.card_reason, judged.counted, judged.measure),
        provenance_of(manifest, origin, "examples"),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(checkpoint: Path) -> dict[str, str]:
    """The plain fields at the head of the checkpoint's own README, such as its licence and base model."""
    try:
        text = (checkpoint / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n"):
        return {}
    found = {}
    for line in text[4:].partition("\n---")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon and value.strip() and not name.startswith((" ", "-")):
            found[name.strip()] = value.strip().strip("\"'")
    return found


def header_of(task: Task, tags: str, origin: dict[str, str]) -> str:
    """The front matter: the task, tags as YAML, and what the checkpoint says of itself."""
    tag = Task.SPEECH_RECOGNITION if task is Task.SPEECH2TEXT_GENERATION else task
    lines = ["---", f"pipeline_tag: {tag}", "library_name: onnxruntime", f"tags: {tags}"]
    lines += [f"{name}: {origin[name]}" for name in ("license", "base_model", "language") if name in origin]
    return "\n".join([*lines, "---"])


def _summary(manifest: Manifest) -> str:
    more = ", numpy, tokenizers and Pillow" if manifest.image else ", numpy and tokenizers"
    words = f"Everything it needs is in this folder and in `requirements.txt`: onnxruntime{more}."
    if manifest.labels:
        shown = ", ".join(f"`{label}`" for label in manifest.labels[:MOST_LABELS])
        more = f" and {len(manifest.labels) - MOST_LABELS} more" if len(manifest.labels) > MOST_LABELS else ""
        words += f"\n\nLabels: {shown}{more}."
    return words


def _use(manifest: Manifest) -> str:
    words = [f'"{word}"' for word in EXAMPLES[manifest.reads]]
    item = words[0] if len(words) == 1 else f"({', '.join(words)})"
    return f"""## Use

```console
pip install -r requirements.txt
python predict.py --selftest
python predict.py {" ".join(words)}
python predict.py --data items.csv --out answers.jsonl
```

```python
from predict import Predictor

predictor = Predictor.open("path/to/this/folder")
predictor.predict([{item}])
```"""


def _limits(manifest: Manifest, invariance: Invariance | None) -> str:
    lines = []
    if manifest.limits is not None:
        end = "start" if manifest.limits.truncate_left else "end"
        lines.append(
            f"A text may have {manifest.limits.max_length_tokens} tokens, special ones included; what is longer is cut "
            f"at its {end}."
        )
        if manifest.task is Task.QUESTION_ANSWERING:
            lines[-1] = f"A context is read in windows of {manifest.limits.max_length_tokens} tokens that overlap."
    if manifest.sound is not None:
        lines.append(f"Recordings have {manifest.sound.rate_hz:,} samples a second.")
    if invariance is not None:
        lines.append(_dependence(invariance))
    if manifest.precision.depends_on_batch:
        lines.append(
            "Activations are scaled by the whole batch; the gate was applied to batches as `predict.py` makes them."
        )
    lines.append("Nothing here says what the model was not trained for, or whom it treats unfairly.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _dependence(found: Invariance) -> str:
    """How far an answer depends on what shares its batch, as it was measured."""
    padded = ""
    if found.padded_error_fraction is not None:
        padded = f", and by {found.padded_error_fraction:.1g} between padded and not"
    return (
        f"On {found.examples} examples, outputs moved by at most {found.alone_error_fraction:.1g} of their scale "
        f"between alone and in a batch{padded}; {found.alone_changed} answers changed."
    )


def figures_section(card: Card | None, reason: str | None, counted: str, measure: str = "accuracy") -> str:
    """What was measured, or why nothing was; an accuracy, by the name of its `measure`, is a share of what is
    `counted`."""
    if card is None:
        return f"## Figures\n\nNone: {reason}."
    rows = ["| workload | median | against " + card.baseline + " |", "| --- | ---: | ---: |"]
    for figure in card.figures:
        interval = "" if figure.ratio_low is None else f" [{figure.ratio_low:.2f}–{figure.ratio_high or 0:.2f}]"
        rows.append(f"| {figure.workload} | {1e3 * figure.median_s:.2f} ms | {figure.ratio:.2f}×{interval} |")
    accuracy = ""
    if card.accuracy_fraction is not None and card.reference_accuracy_fraction is not None:
        accuracy = (
            f"\n\n{measure[0].upper()}{measure[1:]} {card.accuracy_fraction:.3f} on {card.examples} {counted}, "
            f"PyTorch fp32 {card.reference_accuracy_fraction:.3f}"
            + (
                "."
                if card.agreement_fraction is None
                else f"; {card.agreement_fraction:.1%} of the answers are the same."
            )
        )
    place = f"Measured {card.measured_utc} on {card.cpu_model}, {card.threads} threads."
    return "\n".join(["## Figures", "", place, "", *rows]) + accuracy


class Made(Protocol):
    """What every manifest says of where its graph comes from."""

    @property
    def versions(self) -> dict[str, str]: ...

    @property
    def opset(self) -> int: ...

    @property
    def minimum_onnxruntime(self) -> str: ...

    @property
    def reference(self) -> str: ...


def provenance_of(manifest: Made, origin: dict[str, str], golden: str) -> str:
    """Where the weights and the graph come from, and what the golden examples hold."""
    made = ", ".join(f"{name} {number}" for name, number in sorted(manifest.versions.items()))
    least = manifest.minimum_onnxruntime
    needs = "tried with that onnxruntime" if least == "unknown" else f"needs onnxruntime {least} or later"
    licence = origin.get("license", "not stated in the checkpoint")
    base = origin.get("base_model", "not stated in the checkpoint")
    return f"""## Provenance

- Base model: {base}. Licence: {licence}.
- Exported with {made}; opset {manifest.opset}, {needs}.
- Golden {golden}: {manifest.reference}. `python predict.py --selftest` compares with them, `steelyard verify` also the
  hashes of all files and the speed."""
