"""How good answers to questions are: whether they say the same as one of the right ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifact.examples import Examples
from artifact.predict.tokens import TextEncoder
from artifact.spans import answer_words
from measure.quality import Flags, Floats, finite_rows, quality_of, same_number
from measure.records import Quality
from measure.reference import Reference


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's context, where each token of the pair lies in its text, and the right answers; none: there is no
    answer."""

    context: str
    offsets: tuple[tuple[int, int], ...]
    answers: tuple[str, ...]

    def is_right(self, first: int, last: int, lead: float) -> bool:
        """Whether an answer from one token to another, better by `lead` than none, matches a right one exactly."""
        if not self.answers:
            return lead < 0
        words = answer_words(self.context[self.offsets[first][0] : self.offsets[last][1]])
        return any(words == answer_words(answer) for answer in self.answers)


def asked(examples: Examples, encoder: TextEncoder) -> list[Asked]:
    """What is asked of a model, from pairs of question and context, whose labels are the right answers."""
    found = []
    for item, answers, encoding in zip(examples.texts, examples.labels, encoder.encodings(examples.texts), strict=True):
        offsets = tuple((start, end) for start, end in encoding.offsets)
        found.append(Asked(item[1], offsets, (answers,) if isinstance(answers, str) else answers))
    return found


def assess_spans(
    answers: Floats, reference: Reference, truth: Sequence[Asked], *, batch_size: int | None, seconds_s: float
) -> Quality:
    """Compare answers (questions, 3), as `decisions` has them, with the reference's and with the right ones.

    They agree where they are the same words, and where some questions have no answer, where both or neither say so.
    Raises `ValueError` when the numbers of questions differ.
    """
    known = same_number(answers, reference, truth)
    finite = finite_rows(answers)
    agrees = finite & (answers[:, :2] == known[:, :2]).all(axis=-1)
    if not all(item.answers for item in truth):
        none, wanted = answers[:, 2] < 0, known[:, 2] < 0
        agrees = finite & (none == wanted) & (agrees | none)
    return quality_of(
        right=finite & _right(np.where(finite[:, None], answers, 0), truth),
        reference_right=_right(known, truth),
        agrees=agrees,
        finite=finite,
        max_error=float(np.abs(answers[finite, 2].astype(np.float64) - known[finite, 2]).max(initial=0.0)),
        reference=reference.candidate,
        batch_size=batch_size,
        seconds_s=seconds_s,
    )


def _right(answers: Floats, truth: Sequence[Asked]) -> Flags:
    rows = zip(truth, answers.tolist(), strict=True)
    return np.array([item.is_right(int(first), int(last), lead) for item, (first, last, lead) in rows], dtype=np.bool_)
