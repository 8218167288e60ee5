"""Words of a context that answer a question: which are best, and when two answers say the same."""

import re
import string

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from artifact.predict.answers import LONGEST_ANSWER

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def best_span(
    start: NDArray[np.float64], end: NDArray[np.float64], inside: NDArray[np.bool_]
) -> tuple[int, int, float]:
    """First and last token of the answer with the greatest sum of its start's and its end's logit, and that sum.

    All are of shape (tokens,), `inside` says which tokens are the context's; an answer has at most `LONGEST_ANSWER`.
    """
    ends = np.pad(np.where(inside, end, -np.inf), (0, LONGEST_ANSWER - 1), constant_values=-np.inf)
    scores = np.where(inside, start, -np.inf)[:, None] + sliding_window_view(ends, LONGEST_ANSWER)
    first, more = divmod(int(scores.argmax()), LONGEST_ANSWER)
    return first, first + more, float(scores[first, more])


def answer_words(text: str) -> list[str]:
    """The words of an answer without case, punctuation and articles (Rajpurkar et al., EMNLP 2016): answers with the
    same words match exactly."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
