"""`golden.json` of a language model: texts or recordings that an artifact proves itself with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact.generate.encoder import Read
from artifact.predict.golden import INPUT_TOLERANCE, MOST_GOLDEN_BYTES, Sampled, from_base64
from artifact.predict.typed import build, read_json
from errors import GateFailed

GOLDEN_TEXTS_VERSION = 3
MOST_STEPS = 64


@dataclass(frozen=True, kw_only=True)
class GoldenText:
    """What is read, what the reference continues it with, and logits after it and after each token of that: (1 +
    continued, vocabulary). In a run they are the reference's, in an artifact those of its own graph.

    What is read is a `text` with its `ids`, or a `file`, a WAV recording in base64, with its `features`.
    """

    text: str | None = None
    ids: tuple[int, ...] = ()
    file: str | None = None
    features: Sampled | None = None
    continued: tuple[int, ...]
    logits: Sampled

    def __post_init__(self) -> None:
        is_text, is_file = (self.text is not None, bool(self.ids)), (self.file is not None, self.features is not None)
        if {is_text, is_file} != {(True, True), (False, False)} or len(self.continued) > MOST_STEPS:
            raise ValueError("a golden text is neither a text with ids nor a file with features, or has too many steps")
        if len(self.logits.shape) != 2 or self.logits.shape[0] != 1 + len(self.continued):
            raise ValueError("logits of a golden text are not those of its steps")

    @property
    def item(self) -> str | bytes:
        """What a generator reads. Raises `GateFailed` for a file that is no base64."""
        return self.text if self.text is not None else from_base64(self.file or "")

    def is_read_as(self, found: Read) -> bool:
        """Whether that is what the reference reads."""
        if self.features is None:
            return list(self.ids) == list(found)
        return self.features.error(np.asarray(found)) <= INPUT_TOLERANCE

    def __str__(self) -> str:
        return repr(self.text[:40]) if self.text is not None else "a recording"


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
