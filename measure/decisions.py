"""What of an answer is right or wrong by itself: a text's label, each label that it may have, each of its words, or
what else is `Judged`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.examples import Examples
from artifact.judged import Judged
from artifact.spans import best_span
from errors import UserError


def decisions(judged: Judged, answer: NDArray[np.float32], places: Sequence[int]) -> NDArray[np.float32]:
    """One example's answer as one row for each decision.

    Logits are (labels,), or of words (tokens, labels) without padding, where `places` are the tokens that speak for
    the words that are judged: the largest value of a row is the choice. A label that applies has a logit above 0, which
    is what "no" is given. A vector and a score are rows themselves. Of a question's logits (tokens, 2), for starts and
    ends, `places` are the tokens of its context; the row is the first and the last token of the best answer, and by how
    much that is better than none, which the first token of all stands for.
    """
    match judged:
        case Judged.TEXT | Judged.VECTOR | Judged.SCORE:
            return answer[np.newaxis]
        case Judged.LABEL:
            return np.stack([np.zeros_like(answer), answer], axis=-1)
        case Judged.WORD:
            return answer[list(places)]
        case Judged.SPAN:
            return _span(answer.astype(np.float64), places)


def _span(logits: NDArray[np.float64], places: Sequence[int]) -> NDArray[np.float32]:
    if not np.isfinite(logits).all():
        return np.full((1, 3), np.nan, dtype=np.float32)
    if not places:  # the context is empty to the tokenizer
        return np.array([[0, 0, np.finfo(np.float32).min]], dtype=np.float32)
    inside = np.zeros(len(logits), dtype=np.bool_)
    inside[list(places)] = True
    first, last, score = best_span(logits[:, 0], logits[:, 1], inside)
    return np.array([[first, last, score - logits[0].sum()]], dtype=np.float32)


def right_decisions(
    judged: Judged, examples: Examples, names: Sequence[str], places: Sequence[Sequence[int]]
) -> list[int]:
    """What each label or tag should be, example after example: its position, or 1 for a label that applies. Words
    without a place were cut off, and are not judged.

    Where none of all that is written is one of `names`, numbers are the positions themselves. Raises `UserError` naming
    the first unknown label and its row, and the first row that has not one tag for each word.
    """
    written = [(label,) if isinstance(label, str) else label for label in examples.labels]
    positions = {name: index for index, name in enumerate(names)}
    if not any(label in positions for labels in written for label in labels):
        positions = {str(index): index for index in range(len(names))}
    found: list[int] = []
    for row, labels in enumerate(written):
        if unknown := [label for label in labels if label not in positions]:
            raise UserError(
                f"{examples.places[row]}: unknown label '{unknown[0]}'", f"the model knows: {', '.join(names)}"
            )
        right = [positions[label] for label in labels]
        if judged is Judged.LABEL:
            right = [int(index in right) for index in range(len(names))]
        elif judged is Judged.WORD:
            if len(right) != len(examples.texts[row]):
                raise UserError(f"{examples.places[row]}: there is not one tag for each word", "fix or remove that row")
            right = [index for index, place in zip(right, places[row], strict=True) if place >= 0]
        found += right
    return found


UNLABELLED = -1


def groups(examples: Examples) -> list[int]:
    """A number for each text's label, the same for the same; `UNLABELLED` for all where there are no labels.

    Raises `UserError` for a single text, which has no other one near it, and for labels that all texts share or that no
    two do, by which every neighbour would be right or wrong.
    """
    if len(examples) < 2:
        raise UserError(f"{examples.source} has one text, and none beside it that could be near", "give more texts")
    numbers: dict[Any, int] = {"": UNLABELLED}
    found = [numbers.setdefault(label, len(numbers)) for label in examples.labels]
    kinds = len(set(found))
    if found[0] != UNLABELLED and kinds in (1, len(found)):
        what = "all texts have the same label" if kinds == 1 else "no two texts have the same label"
        raise UserError(
            f"{examples.source}: {what}, so labels do not tell whether a text's neighbour is of its kind",
            "give labels that some of the texts share, or a file without labels",
        )
    return found


def quantities(examples: Examples) -> list[float]:
    """Each label, which is a number's text, as a number. Raises `UserError` where all are equal, so that none is higher
    than another."""
    found = [float(str(label)) for label in examples.labels]
    if len(set(found)) < 2:
        raise UserError(
            f"{examples.source}: all labels are {found[0]:g}, so no text ranks above another", "give others"
        )
    return found
