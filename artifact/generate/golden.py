"""`golden.json` of a language model: texts that an artifact proves itself with."""

from dataclasses import dataclass
from pathlib import Path

from artifact.predict.golden import MOST_GOLDEN_BYTES, Sampled
from artifact.predict.typed import build, read_json
from errors import GateFailed

GOLDEN_TEXTS_VERSION = 2
MOST_STEPS = 64


@dataclass(frozen=True, kw_only=True)
class GoldenText:
    """A text, its ids, what the reference continues it with, and logits after the text and after each token of that:
    (1 + continued, vocabulary). In a run they are the reference's, in an artifact those of its own graph."""

    text: str
    ids: tuple[int, ...]
    continued: tuple[int, ...]
    logits: Sampled

    def __post_init__(self) -> None:
        if not self.ids or len(self.continued) > MOST_STEPS:
            raise ValueError("a golden text has no id, or too many steps")
        if len(self.logits.shape) != 2 or self.logits.shape[0] != 1 + len(self.continued):
            raise ValueError("logits of a golden text are not those of its steps")


@dataclass(frozen=True, kw_only=True)
class GoldenTexts:
    """`scale` is the largest absolute logit of the reference.

    An artifact's own: `tolerance` bounds how far a logit may be from that when it was packed, and `reference_error` is
    how far it was then from the reference's. Both are `None` in a run's file.
    """

    schema_version: int
    checkpoint_sha256: str
    scale: float
    tolerance: float | None
    reference_error: float | None
    examples: tuple[GoldenText, ...]

    def __post_init__(self) -> None:
        sizes = (self.tolerance, self.reference_error)
        if not self.scale > 0 or not all(size is None or size >= 0 for size in sizes):
            raise ValueError("scale, tolerance and reference_error are sizes of logits")


def read_golden_texts(folder: Path) -> GoldenTexts:
    """The golden texts of an artifact; `GateFailed` when they are missing, damaged or of another version."""
    path = folder / "golden.json"
    golden = build(GoldenTexts, read_json(path, MOST_GOLDEN_BYTES), str(path))
    if golden.schema_version != GOLDEN_TEXTS_VERSION:
        raise GateFailed(f"{path} has schema_version {golden.schema_version}; this reads {GOLDEN_TEXTS_VERSION}")
    return golden
