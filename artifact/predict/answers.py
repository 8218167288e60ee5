"""Raw outputs to answers, one head for each kind of task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from artifact.predict.tokens import TextEncoder
from errors import GateFailed, UserError

Outputs = Mapping[str, NDArray[np.float32]]
"""Each output of one row, without batch axis and without padding."""

LONGEST_ANSWER = 30
"""Tokens of an answer at most, as in SQuAD's own evaluation of BERT (Devlin et al., NAACL 2019)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: the best label, its score, the score of every label, and all labels that apply."""

    label: str
    score: float
    scores: dict[str, float]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A name in a text: what it is, and where it stands, in characters (for a list of words: in words)."""

    label: str
    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """All entities of a text, and every word with its own label. `truncated`: what follows was not read."""

    entities: tuple[Entity, ...]
    words: tuple[Entity, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Span:
    """The answer to a question, and where it stands in its context, in characters.

    `score` is its probability among all spans of its window, `no_answer_score` that there is none, where the model was
    trained to say so.
    """

    answer: str
    score: float
    start: int
    end: int
    no_answer_score: float


@dataclass(frozen=True, slots=True)
class Filling:
    """One way to fill a mask."""

    token: str
    token_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Filled:
    """For each mask of a text its likeliest tokens, and the text with the likeliest of all in place."""

    text: str
    masks: tuple[tuple[Filling, ...], ...]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of a text."""

    vector: NDArray[np.float32]


Result = Prediction | Tagged | Span | Filled | Embedding


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller chooses: how many labels or tokens are told (`None`: all labels, five tokens), and from which
    score on one of several labels applies."""

    top_k: int | None = None
    threshold: float = 0.5


class Head(Protocol):
    """Answers an item from the outputs of its rows: one row, or several windows of a long text."""

    def part(self, item: Any, encoding: Any, outputs: Outputs, asked: Asked) -> Any:
        """What is kept of one row; `encoding` is the tokenizer's, where there is one."""

    def answer(self, item: Any, parts: Sequence[Any], asked: Asked) -> Result:
        """The answer from the parts of all rows."""


def scores_from_logits(logits: NDArray[np.float32], activation: str) -> NDArray[np.float64]:
    """Scores of shape (…, labels): `softmax` over labels, `sigmoid` of each, or `none`."""
    values = logits.astype(np.float64)
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    if activation == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, -values)))
    return values


class Classifier:
    """Labels of a text, a pair, a picture or a recording."""

    def __init__(self, labels: Sequence[str], activation: str) -> None:
        self._labels, self._activation = tuple(labels), activation

    def part(self, item: Any, encoding: Any, outputs: Outputs, asked: Asked) -> NDArray[np.float64]:
        logits = outputs["logits"].reshape(-1)
        if len(logits) != len(self._labels):
            raise GateFailed(f"the model gives {len(logits)} scores, and there are {len(self._labels)} labels")
        return scores_from_logits(logits, self._activation)

    def answer(self, item: Any, parts: Sequence[NDArray[np.float64]], asked: Asked) -> Prediction:
        row = parts[0]
        best = int(row.argmax())
        told = range(len(row)) if asked.top_k is None else np.argsort(-row, kind="stable")[: asked.top_k].tolist()
        applying = [best] if self._activation == "softmax" else []
        if self._activation == "sigmoid":
            applying = np.flatnonzero(row >= asked.threshold).tolist()
        return Prediction(
            label=self._labels[best],
            score=float(row[best]),
            scores={self._labels[index]: float(row[index]) for index in told},
            labels=tuple(self._labels[index] for index in applying),
        )


class Tagger:
    """Words of a text with labels, and the entities they make up. A word has the label of its first token."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)

    def part(self, item: Any, encoding: Any, outputs: Outputs, asked: Asked) -> tuple[list[Entity], bool]:
        scores = scores_from_logits(outputs["logits"], "softmax")
        if scores.shape != (len(encoding.ids), len(self._labels)):
            raise GateFailed(f"the model gives scores of shape {scores.shape} for {len(self._labels)} labels")
        words: list[Entity] = []
        places: list[int] = []
        for token, word in enumerate(encoding.word_ids):
            if word is None:
                continue
            start, end = (word, word + 1) if isinstance(item, list) else encoding.offsets[token]
            if places and places[-1] == word:
                first = words[-1]
                end = max(first.end, end)
                words[-1] = Entity(first.label, _cut(item, first.start, end), first.score, first.start, end)
                continue
            label = int(scores[token].argmax())
            words.append(Entity(self._labels[label], _cut(item, start, end), float(scores[token, label]), start, end))
            places.append(word)
        return words, bool(encoding.overflowing)

    def answer(self, item: Any, parts: Sequence[tuple[list[Entity], bool]], asked: Asked) -> Tagged:
        words, truncated = parts[0]
        return Tagged(_entities(item, words), tuple(words), truncated)


def _cut(item: str | list[str], start: int, end: int) -> str:
    return " ".join(item[start:end]) if isinstance(item, list) else item[start:end]


def _entities(item: Any, words: Sequence[Entity]) -> tuple[Entity, ...]:
    """Neighbouring words of one kind, in the tags of CoNLL: `B-` begins another entity, `O` is none."""
    groups: list[list[Entity]] = []
    kind_before = ""
    for word in words:
        sign, _, kind = word.label.partition("-") if word.label[:2] in ("B-", "I-") else ("", "", word.label)
        if kind == kind_before and sign != "B" and kind != "O":
            groups[-1].append(word)
        elif kind != "O":
            groups.append([word])
        kind_before = kind
    return tuple(
        Entity(
            label=group[0].label[2:] if group[0].label[:2] in ("B-", "I-") else group[0].label,
            text=_cut(item, group[0].start, group[-1].end),
            score=float(np.mean([word.score for word in group])),
            start=group[0].start,
            end=group[-1].end,
        )
        for group in groups
    )


class Answerer:
    """The span of a context that answers a question, over all windows of a long context."""

    def part(self, item: Any, encoding: Any, outputs: Outputs, asked: Asked) -> Span:
        within = np.asarray([part == 1 for part in encoding.sequence_ids])
        counted = within.copy()
        counted[0] = True  # where models that may find no answer say so
        start = _shares(outputs["start_logits"], counted)
        end = _shares(outputs["end_logits"], counted)
        none = float(start[0] * end[0])
        chances = np.triu(np.outer(np.where(within, start, 0), np.where(within, end, 0)))
        chances = np.tril(chances, LONGEST_ANSWER - 1)
        first, last = np.unravel_index(int(chances.argmax()), chances.shape)
        if not within.any():
            return Span("", 0.0, 0, 0, none)
        begin, finish = encoding.offsets[int(first)][0], encoding.offsets[int(last)][1]
        return Span(item[1][begin:finish], float(chances[first, last]), begin, finish, none)

    def answer(self, item: Any, parts: Sequence[Span], asked: Asked) -> Span:
        best = max(parts, key=lambda part: part.score)
        none = min(part.no_answer_score for part in parts)
        return Span(best.answer, best.score, best.start, best.end, none)


def _shares(logits: NDArray[np.float32], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    return scores_from_logits(np.where(counted, logits, np.float32(-1e30)), "softmax")


class MaskFiller:
    """The likeliest tokens at each mask of a text."""

    def __init__(self, encoder: TextEncoder, mask_id: int) -> None:
        self._encoder, self._mask_id = encoder, mask_id

    def part(self, item: Any, encoding: Any, outputs: Outputs, asked: Asked) -> Filled:
        ids = list(encoding.ids)
        places = [place for place, token in enumerate(ids) if token == self._mask_id]
        if not places:
            mask = self._encoder.token(self._mask_id)
            raise UserError(f"'{str(item)[:60]}' has no {mask} to fill", f"write {mask} where a word is missing")
        masks = []
        for place in places:
            scores = scores_from_logits(outputs["logits"][place], "softmax")
            best = np.argsort(-scores, kind="stable")[: asked.top_k or 5].tolist()
            masks.append(tuple(Filling(self._encoder.spelled(token), token, float(scores[token])) for token in best))
            ids[place] = best[0]
        return Filled(self._encoder.decode(ids), tuple(masks))  # without [CLS] and the like

    def answer(self, item: Any, parts: Sequence[Filled], asked: Asked) -> Filled:
        return parts[0]


class Embedder:
    """The vector of a text."""

    def __init__(self, output: str) -> None:
        self._output = output

    def part(self, item: Any, encoding: Any, outputs: Outputs, asked: Asked) -> Embedding:
        return Embedding(outputs[self._output])

    def answer(self, item: Any, parts: Sequence[Embedding], asked: Asked) -> Embedding:
        return parts[0]
