"""How right a model is at its task, as sums over examples, so that one paired interval serves every metric."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.intervals import Interval, paired_difference
from artifact.spans import answer_words, best_span
from artifact.task import Task
from errors import UserError
from models.training import Problem

Floats = NDArray[np.float64]
Outputs = Mapping[str, NDArray[Any]]
"""One example's outputs by name, without batch axis and padded positions."""

OVERLAP = 0.5
SCORE = 0.5
IGNORED_CLASS = 255
FLAT = 1e-12
"""A variance below this share of the mean square is rounding noise of its sums."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`statistics` of one example (its outputs and its truth), shape (k,), never NaN; an answer that is read from a NaN
    or an infinity is wrong. `value` takes sums of them, shape (..., k), to shape (...).
    """

    name: str
    statistics: Callable[[Outputs, Any], Floats]
    value: Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of the answers and of the reference's on the same examples, and their difference."""

    value: float
    reference: float
    difference: Interval
    examples: int


@dataclass(frozen=True, slots=True)
class TokenTruth:
    """Tags of a text's words, the position of each word's first token (-1: cut off), and the model's labels by id."""

    first_tokens: tuple[int, ...]
    tags: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerTruth:
    """Right answers to a question (none: it has none), and where each token lies in `context` (`None`: outside).

    `starts` is where each answer begins in the context; -1 where it does not occur. Where questions without an answer
    are among the data, to say that there is none is wrong of all others (`none_is_said`).
    """

    context: str
    offsets: tuple[tuple[int, int] | None, ...]
    answers: tuple[str, ...]
    starts: tuple[int, ...] = ()
    none_is_said: bool = False


@dataclass(frozen=True, slots=True)
class WrittenTruth:
    """Tokens of a text, of which the first `told` are not guessed."""

    ids: tuple[int, ...]
    told: int = 1


@dataclass(frozen=True, slots=True)
class TranscriptTruth:
    """What is said, and how a CTC model spells: its symbols by id, the id of the blank, and what stands for a space."""

    text: str
    vocabulary: tuple[str, ...]
    blank: int
    word_delimiter: str = "|"


def compare(metric: Metric, answers: Floats, reference: Floats) -> Comparison:
    """Compare statistics of the same examples, both of shape (examples, k).

    The difference of two values is the mean of one influence for each example, found by the jackknife (Efron and Stein,
    Annals of Statistics 1981); where a value is a mean, an influence is that example's difference. Raises `ValueError`
    for unequal shapes or no example.
    """
    if answers.shape != reference.shape or not len(answers):
        raise ValueError(f"statistics of shape {answers.shape} and {reference.shape} cannot be compared")
    examples = len(answers)
    sums, expected = answers.sum(axis=0), reference.sum(axis=0)
    value, wanted = float(metric.value(sums)), float(metric.value(expected))
    difference = value - wanted
    without = metric.value(sums - answers) - metric.value(expected - reference)
    influence = difference + (examples - 1) * (without.mean() - without)
    interval = paired_difference(examples * difference, float((influence**2).sum()), examples)
    return Comparison(value, wanted, interval, examples)


def _finite(*arrays: NDArray[Any]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _row(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def _share(sums: Floats) -> Floats:
    """Of (part, whole); 0 of nothing."""
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


def _f1(sums: Floats) -> Floats:
    """Of (found, invented, missed); 1 where there was nothing to find and nothing was found."""
    errors = sums[..., 1] + sums[..., 2]
    return np.asarray(1 - errors / np.maximum(2 * sums[..., 0] + errors, 1))


_UNREADABLE = frozenset({None})
"""What is found in outputs that are not numbers: never right, so invented."""


def _hits(found: Collection[Any], truth: Collection[Any]) -> Floats:
    right = len(set(found) & set(truth))
    return _row(right, len(found) - right, len(truth) - right)


def _class(outputs: Outputs, truth: int) -> Floats:
    logits = outputs["logits"]
    return _row(_finite(logits) and logits.argmax() == truth, 1)


def _classes(outputs: Outputs, truth: Collection[int]) -> Floats:
    logits = outputs["logits"]
    return _hits(set(np.flatnonzero(logits > 0).tolist()) if _finite(logits) else _UNREADABLE, set(truth))


def _number(outputs: Outputs, truth: float) -> Floats:
    predicted = float(outputs["logits"].item())
    if not np.isfinite(predicted):
        return _row(1, 0, 0, 0, 0, 0, 0)
    return _row(1, 1, predicted, truth, predicted**2, truth**2, predicted * truth)


def _correlation(sums: Floats) -> Floats:
    """Pearson's r of the numbers that can be read, less the share of those that cannot; 0 for constants."""
    examples, readable, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    count = np.maximum(readable, 1)
    spread_x, spread_y = xx - x**2 / count, yy - y**2 / count
    flat = (spread_x <= FLAT * xx) | (spread_y <= FLAT * yy)
    scale = np.sqrt(np.where(flat, 1, spread_x)) * np.sqrt(np.where(flat, 1, spread_y))
    r = np.where(flat, 0, np.clip((xy - x * y / count) / scale, -1, 1))
    return np.asarray(r - (examples - readable) / np.maximum(examples, 1))


_TAG = re.compile(r"(?:([BIESLU])-)?(.+)", re.DOTALL)


def tag_type(tag: str) -> str:
    """The type of a tag without its prefix: PER of `B-PER`, `I-PER` and `PER`; `O` has itself."""
    return _split_tag(tag)[1]


def _split_tag(tag: str) -> tuple[str, str]:
    found = _TAG.fullmatch(tag)
    return (found[1] or "I", found[2]) if found else ("I", tag)


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Spans (type, first, last) of word tags in BIO, IO, IOBES or BILOU.

    A tag that nothing of its type precedes starts a span whatever its prefix, as seqeval's default mode does.
    """
    found: set[tuple[str, int, int]] = set()
    start, before, kind = 0, "", "O"
    for position, tag in enumerate((*tags, "O")):
        prefix, type_ = _split_tag(tag)
        if type_ == kind and prefix not in "BSU" and before not in "ESLU":
            before = prefix
            continue
        if kind != "O":
            found.add((kind, start, position - 1))
        start, before, kind = position, prefix, type_
    return found


def _spans(outputs: Outputs, truth: TokenTruth) -> Floats:
    """Words that were cut off have no tag, so their spans are missed."""
    seen = [position for position in truth.first_tokens if position >= 0]
    logits = outputs["logits"][seen]
    if not _finite(logits):
        return _hits(_UNREADABLE, spans(truth.tags))
    best = iter(logits.argmax(axis=-1).tolist())
    tags = [truth.labels[next(best)] if position >= 0 else "O" for position in truth.first_tokens]
    return _hits(spans(tags), spans(truth.tags))


def _answer(outputs: Outputs, truth: AnswerTruth) -> Floats:
    start, end = (outputs[name].astype(np.float64) for name in ("start_logits", "end_logits"))
    if not _finite(start, end):
        return _row(0, 1)
    inside = np.array([offset is not None for offset in truth.offsets])
    begins, ends, score = best_span(start, end, inside)
    says_none = score < start[0] + end[0]
    if not truth.answers or (truth.none_is_said and says_none):
        return _row(says_none and not truth.answers, 1)
    first, last = truth.offsets[begins], truth.offsets[ends]
    text = truth.context[first[0] : last[1]] if first and last else ""
    return _row(max(token_overlap(text, answer) for answer in truth.answers), 1)


def token_overlap(text: str, answer: str) -> float:
    """F1 of the words of two answers, as `answer_words` has them (Rajpurkar et al., EMNLP 2016)."""
    words = answer_words(text), answer_words(answer)
    common = (Counter(words[0]) & Counter(words[1])).total()
    return 2 * common / (len(words[0]) + len(words[1])) if common else 0.0


def _masked(outputs: Outputs, truth: Sequence[tuple[int, int]]) -> Floats:
    logits = outputs["logits"][[position for position, _ in truth]]
    right = (logits.argmax(axis=-1) == [token for _, token in truth]) & np.isfinite(logits).all(axis=-1)
    return _row(right.sum(), len(truth))


def _overlap(outputs: Outputs, truth: NDArray[Any]) -> Floats:
    """Pixels in the intersection, then in the union, of each class."""
    logits = outputs["logits"]
    classes, height, width = logits.shape
    counted = truth != IGNORED_CLASS
    wanted = truth[counted].astype(np.int64)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < classes:
        raise UserError(
            f"a segmentation map has the classes {wanted.min()} to {wanted.max()}, and the model only {classes}",
            f"number classes from 0; {IGNORED_CLASS} marks pixels that do not count",
        )
    readable = np.where(np.isfinite(logits).all(axis=0), logits.argmax(axis=0), classes)
    rows, columns = (np.arange(size) * small // size for size, small in zip(truth.shape, (height, width), strict=True))
    found = readable[np.ix_(rows, columns)][counted]
    both = np.bincount(wanted[found == wanted], minlength=classes)
    union = np.bincount(wanted, minlength=classes) + np.bincount(found, minlength=classes)[:classes] - both
    return np.concatenate((both, union)).astype(np.float64)


def _mean_overlap(sums: Floats) -> Floats:
    both, union = np.split(sums, 2, axis=-1)
    occurs = union > 0
    return np.asarray((both / np.maximum(union, 1)).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1))


def _objects(outputs: Outputs, truth: Sequence[tuple[float, ...]]) -> Floats:
    """The surest box takes first the truth of its class that it overlaps most."""
    logits, boxes = (outputs[name].astype(np.float64) for name in ("logits", "pred_boxes"))
    if not _finite(logits, boxes):
        return _hits(_UNREADABLE, range(len(truth)))
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    best, sure = scores.argmax(axis=-1), scores.max(axis=-1)
    found = np.flatnonzero((best < logits.shape[-1] - 1) & (sure > SCORE))
    left = list(truth)
    for query in found[np.argsort(-sure[found], kind="stable")]:
        overlaps = [_box_overlap(boxes[query], item[1:]) if item[0] == best[query] else 0.0 for item in left]
        if overlaps and max(overlaps) >= OVERLAP:
            del left[int(np.argmax(overlaps))]
    right = len(truth) - len(left)
    return _row(right, len(found) - right, len(left))


def _box_overlap(box: Sequence[float] | Floats, other: Sequence[float] | Floats) -> float:
    """Intersection over union of two boxes given by centre and size."""
    centres, sizes = np.array([box[:2], other[:2]]), np.array([box[2:], other[2:]])
    shared = (centres + sizes / 2).min(axis=0) - (centres - sizes / 2).max(axis=0)
    both = float(np.maximum(shared, 0).prod())
    union = float(sizes.prod(axis=1).sum()) - both
    return both / union if union > 0 else 0.0


def _transcript(outputs: Outputs, truth: TranscriptTruth) -> Floats:
    text = " ".join(truth.text.split())
    logits = outputs["logits"]
    if not _finite(logits):
        return _row(max(1, len(text)), len(text))
    best = logits.argmax(axis=-1)
    kept = best[(np.diff(best, prepend=-1) != 0) & (best != truth.blank)]
    said = "".join(truth.vocabulary[symbol] for symbol in kept).replace(truth.word_delimiter, " ")
    return _row(edits(" ".join(said.split()), text), len(text))


def edits(text: str, other: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn one into the other (Levenshtein 1966)."""
    letters = np.array([ord(letter) for letter in other], dtype=np.int64)
    steps = np.arange(len(other) + 1)
    row = steps
    for letter in text:
        changed = np.minimum(row[1:] + 1, row[:-1] + (letters != ord(letter)))
        row = np.minimum.accumulate(np.concatenate((row[:1] + 1, changed)) - steps) + steps
    return int(row[-1])


def _surprise(outputs: Outputs, truth: WrittenTruth) -> Floats:
    """Negative log-likelihood of each token that is guessed, and how many these are."""
    guessed = np.array(truth.ids[truth.told :])
    logits = outputs["logits"][truth.told - 1 : len(truth.ids) - 1].astype(np.float64)
    if not _finite(logits):
        return _row(len(guessed) * np.log(logits.shape[-1]), len(guessed))
    highest = logits.max(axis=-1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
    said = np.take_along_axis(logits, guessed[:, None], axis=-1)[:, 0]
    return _row((total - said).sum(), len(said))


def _perplexity(sums: Floats) -> Floats:
    return np.asarray(np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1)))


def _spelt(sums: Floats) -> Floats:
    return np.asarray(1 - sums[..., 0] / np.maximum(sums[..., 1], 1))


ACCURACY = Metric("accuracy", _class, _share)
MULTI_LABEL_F1 = Metric("micro F1", _classes, _f1)
CORRELATION = Metric("Pearson correlation", _number, _correlation)
SPAN_F1 = Metric("span F1", _spans, _f1)
ANSWER_F1 = Metric("answer F1", _answer, _share)
MASKED_ACCURACY = Metric("masked accuracy", _masked, _share)
MEAN_IOU = Metric("mean IoU", _overlap, _mean_overlap)
OBJECT_F1 = Metric("object F1", _objects, _f1)
PERPLEXITY = Metric("perplexity", _surprise, _perplexity)
CHARACTER_ACCURACY = Metric("character accuracy", _transcript, _spelt)

REGRESSION = "regression"
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"

_BY_PROBLEM = {SINGLE_LABEL: ACCURACY, MULTI_LABEL: MULTI_LABEL_F1, REGRESSION: CORRELATION}
CLASSIFIERS = (Task.TEXT_CLASSIFICATION, Task.IMAGE_CLASSIFICATION, Task.AUDIO_CLASSIFICATION)
_BY_TASK = {
    Task.TOKEN_CLASSIFICATION: SPAN_F1,
    Task.QUESTION_ANSWERING: ANSWER_F1,
    Task.FILL_MASK: MASKED_ACCURACY,
    Task.IMAGE_SEGMENTATION: MEAN_IOU,
    Task.OBJECT_DETECTION: OBJECT_F1,
    Task.SPEECH_RECOGNITION: CHARACTER_ACCURACY,
    Task.TEXT_GENERATION: PERPLEXITY,
    Task.TEXT2TEXT_GENERATION: PERPLEXITY,
    Task.SPEECH2TEXT_GENERATION: PERPLEXITY,
}


PROBLEM_TYPES = {
    Problem.SINGLE_LABEL: SINGLE_LABEL,
    Problem.MULTI_LABEL: MULTI_LABEL,
    Problem.REGRESSION: REGRESSION,
}
"""What transformers calls a problem, where it has a name."""


def problem_of(problem: str | None, labels: int) -> str:
    """What a classifier decides, by its `problem_type`, or by its number of labels where that says nothing.

    Raises `UserError` for a `problem_type` that transformers does not know.
    """
    found = problem or (REGRESSION if labels == 1 else SINGLE_LABEL)
    if found not in _BY_PROBLEM:
        raise UserError(f"config.json has the problem_type '{found}'", f"set it to one of: {', '.join(_BY_PROBLEM)}")
    return found


def metric_for(task: Task, *, problem: str | None, labels: int) -> Metric | None:
    """The metric of a task, or `None` where there is none, as for a regression of several numbers at once.

    `problem` is the configuration's `problem_type`; raises `UserError` as `problem_of` does.
    """
    if task not in CLASSIFIERS:
        return _BY_TASK.get(task)
    found = problem_of(problem, labels)
    return None if found == REGRESSION and labels > 1 else _BY_PROBLEM[found]


def metric_of(task: Task, problem: Problem, labels: int) -> Metric:
    """The metric of what was learnt. Raises `ValueError` where there is none."""
    found = metric_for(task, problem=PROBLEM_TYPES.get(problem), labels=labels)
    if found is None:
        raise ValueError(f"{task} of {labels} labels has no metric")
    return found
