"""How good answers to questions are: whether they say the same as one of the right ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifact.examples import Examples
from artifact.predict.tokens import TextEncoder
from artifact.spans import answer_words
from errors import UserError
from measure.quality import Flags, Floats, checked_reference, finite_rows, quality_of
from measure.records import Quality
from measure.reference import Reference


@dataclass(frozen=True, slots=True)
class Question:
    """A question's context, where each token of the pair lies in its text, and the right answers; none: there is no
    answer. Where such are among the data, to say that there is none is wrong of all others (`none_is_said`)."""

    context: str
    offsets: tuple[tuple[int, int], ...]
    answers: tuple[str, ...]
    none_is_said: bool = False

    def is_right(self, first: int, last: int, lead: float) -> bool:
        """Whether an answer from one token to another, better by `lead` than none, matches a right one exactly."""
        if self.none_is_said and lead < 0:
            return not self.answers
        words = answer_words(self.context[self.offsets[first][0] : self.offsets[last][1]])
        return any(words == answer_words(answer) for answer in self.answers)


def questions(examples: Examples, encoder: TextEncoder) -> list[Question]:
    """What is asked of a model, from pairs of question and context, whose labels are the right answers."""
    none_is_said = any(not answers for answers in examples.labels)
    return [
        Question(
            item[1],
            tuple((start, end) for start, end in encoding.offsets),
            (answers,) if isinstance(answers, str) else answers,
            none_is_said,
        )
        for item, answers, encoding in zip(
            examples.texts, examples.labels, encoder.encodings(examples.texts), strict=True
        )
    ]


def check_room(examples: Examples, encoder: TextEncoder) -> None:
    """Raise `UserError` naming the first row whose question leaves the model no room for its context."""
    for item, place in zip(examples.texts, examples.places, strict=True):
        try:
            encoder.encodings([item])
        except UserError as error:
            most = encoder.limits.max_length_tokens
            raise UserError(
                f"{place}: the question leaves no room for its context in {most} tokens ({error.message})",
                "shorten or remove it",
            ) from error


def assess_spans(
    answers: Floats, reference: Reference, truth: Sequence[Question], *, batch_size: int | None, seconds_s: float
) -> Quality:
    """Compare answers (questions, 3), as `decisions` has them, with the reference's and with the right ones.

    They agree where they are the same words, and where some questions have no answer, where both or neither say so.
    Raises `ValueError` when the numbers of questions differ.
    """
    known = checked_reference(answers, reference, truth)
    finite, both = finite_rows(answers), finite_rows(answers) & finite_rows(known)
    agrees = both & (answers[:, :2] == known[:, :2]).all(axis=-1)
    if any(item.none_is_said for item in truth):
        none, wanted = answers[:, 2] < 0, known[:, 2] < 0
        agrees = both & (none == wanted) & (agrees | none)
    return quality_of(
        right=_right(answers, truth),
        reference_right=_right(known, truth),
        agrees=agrees,
        finite=finite,
        max_error=float(np.abs(answers[both, 2].astype(np.float64) - known[both, 2]).max(initial=0.0)),
        reference=reference.candidate,
        batch_size=batch_size,
        seconds_s=seconds_s,
    )


def _right(answers: Floats, truth: Sequence[Question]) -> Flags:
    """What is no number is wrong."""
    rows = zip(truth, np.nan_to_num(answers).tolist(), strict=True)
    said = [item.is_right(int(first), int(last), lead) for item, (first, last, lead) in rows]
    return finite_rows(answers) & np.array(said, dtype=np.bool_)
