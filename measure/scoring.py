"""Have a candidate answer the evaluation texts, and compare its answers with the reference's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from measure.messages import Score, Scored
from measure.process import WorkerProcess
from measure.quality import Assess, assess
from measure.records import Entrant, Quality, Role
from measure.reference import Reference, load_reference, save_reference
from runtimes.registry import REFERENCE


class Scorer:
    """Scores candidates against the reference's answers, which it keeps in a file for the next session.

    `mark` says what these depend on. Where the reference is neither in the file nor runs here, the anchor's answers
    stand in, and are not kept. `assessed` compares one's answers with the other's.
    """

    def __init__(
        self,
        path: Path,
        mark: str | None,
        labels: Sequence[Any],
        batch_sizes: Sequence[int],
        scratch: Path,
        *,
        assessed: Assess = assess,
    ) -> None:
        self._assess = assessed
        self._path, self._mark, self._labels, self._scratch = path, mark, labels, scratch
        self._batch_sizes = sorted(set(batch_sizes))
        self._reference = load_reference(path, mark) if mark else None

    def score(self, entrant: Entrant, process: WorkerProcess, timeout_s: float) -> tuple[Quality, ...]:
        """Quality batched as an artifact serves; for precisions whose answers depend on their company, at every batch
        size too.

        Empty for the control, which repeats the anchor, and when the anchor has given no reference. Raises
        `WorkerFailed` when the candidate does not answer.
        """
        if entrant.role is Role.CONTROL:
            return ()
        sizes = self._batch_sizes if entrant.candidate.precision.depends_on_batch else []
        found = []
        for batch_size in (None, *sizes):
            path = self._scratch / "logits.npz"
            patience_s = timeout_s + len(self._labels)  # a second for each example
            scored = process.ask(Score(batch_size=batch_size, path=str(path)), Scored, patience_s)
            with np.load(path, allow_pickle=False) as arrays:
                answers = np.asarray(arrays["answers"], dtype=np.float32)
            if self._reference is None and entrant.role is Role.ANCHOR:
                self._reference = Reference(entrant.candidate.id, answers)
                if self._mark and entrant.candidate == REFERENCE:
                    save_reference(self._path, self._reference, self._mark)
            if self._reference is None:
                return ()
            found.append(
                self._assess(answers, self._reference, self._labels, batch_size=batch_size, seconds_s=scored.seconds_s)
            )
        return tuple(found)
