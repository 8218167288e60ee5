"""What fine-tuning tells a person: before, of the data; after, of what was reached."""

from collections.abc import Iterator, Mapping

from artifact.intervals import Estimate
from artifact.task import Task
from models.training import DataSummary, TrainingRecord

MOST_LABELS = 12
WORDS: Mapping[Task, Mapping[str, str]] = {
    Task.IMAGE_CLASSIFICATION: {"text": "picture"},
    Task.TEXT2TEXT_GENERATION: {"label": "what is written"},
    Task.SPEECH2TEXT_GENERATION: {"text": "recording", "label": "what is said"},
}
"""What columns hold, where that is no text and no label."""
WIDTH = 24
"""Blocks of the longest bar."""


def told_before(data: DataSummary) -> Iterator[str]:
    """The columns and labels that were found, what is left out, how long texts are."""
    words = WORDS.get(data.task, {})
    parts = ", ".join(f"{words.get(part, part)} from column '{name}'" for part, name in data.columns.items())
    yield f"{data.task}, {data.problem}: {parts}"
    counted = {"train": "to learn from", "validation": "to validate", "evaluation": "held out"}
    sizes = ", ".join(f"{data.examples[name]:,} {what}" for name, what in counted.items() if name in data.examples)
    lost = ((data.duplicates_removed, "duplicates"), (data.leaked_removed, "that are held out, too"))
    left = ", ".join(f"{count:,} {what}" for count, what in lost if count)
    yield sizes + (f"; left out: {left}" if left else "")
    if data.labels:
        total = sum(data.labels.values())
        common = sorted(data.labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {count:,} ({count / total:.0%})" for name, count in common[:MOST_LABELS])
        yield f"labels: {shown}" + (f" and {len(common) - MOST_LABELS} more" if len(common) > MOST_LABELS else "")
    if data.lengths:
        most = max(data.lengths.counts.values())
        for edge, count in data.lengths.counts.items():
            yield f"  up to {edge:>5} tokens {'█' * -(-count * WIDTH // most):<{WIDTH}} {count:,}"
        cut = data.lengths.truncated_fraction
        rest = ", and what is cut off is neither learnt nor scored" if cut else ""
        yield f"  cut to the limit: {cut:.1%}{rest}"


def told_after(record: TrainingRecord) -> Iterator[str]:
    """What was reached, and at which cost."""
    held_out = record.data.examples["evaluation"]
    beside = f"; the base model alone: {_estimate(record.before)}" if record.before else ""
    if record.scores:
        beside += f"; the commonest label alone: {record.scores.most_frequent:.3f}"
    yield f"{record.metric} {_estimate(record.value)} on {held_out:,} held-out examples{beside}"
    where = record.device if record.processes == 1 else f"{record.processes} × {record.device}"
    part = record.learnt_weights / record.weights
    share = "" if part == 1 else f", {part:.2%} of the weights"
    yield (
        f"{record.steps} steps in {record.precision} on {where}{share}: {record.seconds_s:.0f} s, "
        f"{record.samples_per_s:.0f} examples/s"
    )
    if record.best:
        yield f"kept: step {record.best.step}, with a validation {record.best.metric} of {record.best.value:.3f}"


def _estimate(found: Estimate) -> str:
    digits = 3 if found.value < 10 else 1
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}–{found.high:.{digits}f}]"
