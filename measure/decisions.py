"""What of an answer is right or wrong by itself: a text's label, each label that it may have, or each of its words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.examples import Examples
from artifact.judged import Judged
from errors import UserError


def decisions(judged: Judged, logits: NDArray[np.float32], places: Sequence[int]) -> NDArray[np.float32]:
    """One example's logits as one row for each decision, whose largest value is the choice.

    `logits` are (labels,), or of words (tokens, labels) without padding, where `places` are the tokens that speak for
    the words that are judged. A label that applies has a logit above 0, which is what "no" is given.
    """
    match judged:
        case Judged.TEXT:
            return logits[np.newaxis]
        case Judged.LABEL:
            return np.stack([np.zeros_like(logits), logits], axis=-1)
        case Judged.WORD:
            return logits[list(places)]


def right_decisions(
    judged: Judged, examples: Examples, names: Sequence[str], places: Sequence[Sequence[int]]
) -> list[int]:
    """What each decision should be, example after example: the position of the label or tag, or 1 for a label that
    applies. Words without a place were cut off, and are not judged.

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
