"""Ids that no table has, on their way to a GPU."""

import numpy as np
import pytest

from errors import UserError
from runtimes.language import LanguageRuntime

OUTSIDE = "input_ids has numbers outside 0 to 114"


def check_refused(runtime: LanguageRuntime, number: int) -> None:
    """An id is refused in a prompt, in a step and in whole texts."""
    wrong = np.full((1, 2), number)
    continuing = runtime.begin(1, 4)
    with pytest.raises(UserError, match=OUTSIDE):
        continuing.prompt(wrong.tolist())
    with pytest.raises(UserError, match=OUTSIDE):
        continuing.prompt([[1, 2, number], [1]])  # of unequal length
    with pytest.raises(UserError, match=OUTSIDE):
        continuing.step(wrong[:, 0])
    with pytest.raises(UserError, match=OUTSIDE):
        runtime.every(wrong, np.ones_like(wrong))
