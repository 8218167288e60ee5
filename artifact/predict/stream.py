"""Answers for a whole file: in its order, in bounded memory, and resumed after a kill."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from artifact.predict.answers import Embedding, Filled, Prediction, Result, Span, Tagged
from artifact.predict.folder import MANIFEST
from artifact.predict.predictor import Predictor
from artifact.predict.rows import ItemColumns, read_items
from artifact.predict.whole_file import Told, WholeFile, answer_file, no_word

WINDOW_ITEMS = 2048
WINDOW_CHARACTERS = 500_000
"""Items are sorted by length within windows, so that a batch has little padding; a window ends with either."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is answered, from which columns, and which others are carried over."""

    columns: ItemColumns = field(default_factory=ItemColumns)
    kept: tuple[str, ...] = ()
    top_k: int | None = None
    threshold: float = 0.5


def windows(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Runs of items: at most `WINDOW_ITEMS`, and no more once they have `WINDOW_CHARACTERS`."""
    window: list[T] = []
    characters = 0
    for item in items:
        window.append(item)
        characters += size(item)
        if len(window) == WINDOW_ITEMS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def item_size(item: Any) -> int:
    """Characters of a text item; a picture or recording counts as twenty thousand."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, tuple | list):
        return sum(map(len, item))
    return 20_000


def record(item: Any, answer: Result) -> dict[str, Any]:
    """An item and its answer as JSON has them."""
    return {**_item_fields(item), **_answer_fields(answer)}


def _item_fields(item: Any) -> dict[str, Any]:
    if isinstance(item, tuple):
        return {"text": item[0], "pair": item[1]}
    return {"text": item} if isinstance(item, str | list) else {"file": str(item)}


def _answer_fields(answer: Result) -> dict[str, Any]:
    if isinstance(answer, Embedding):
        return {"vector": [float(value) for value in answer.vector]}
    if isinstance(answer, Filled):
        return {"filled": answer.text, "masks": [[asdict(one) for one in mask] for mask in answer.masks]}
    return asdict(answer)


def plain(item: Any, answer: Result) -> str:
    """One line for a person: the answer first, then the item, with tabs between."""
    shown = " | ".join(map(str, item)) if isinstance(item, tuple) else item
    shown = " ".join(item) if isinstance(item, list) else str(shown)
    if isinstance(answer, Prediction):
        return f"{answer.label}\t{answer.score:.4f}\t{shown}"
    if isinstance(answer, Span):
        return f"{answer.answer}\t{answer.score:.4f}\t{shown}"
    if isinstance(answer, Tagged):
        told = ", ".join(f"{entity.label}: {entity.text}" for entity in answer.entities)
        return f"{told or '-'}\t{shown}"
    if isinstance(answer, Filled):
        return "\t".join((*(", ".join(one.token for one in mask) for mask in answer.masks), answer.text))
    return f"{' '.join(f'{value:.4f}' for value in answer.vector[:4])} … ({len(answer.vector)})\t{shown}"


def predict_file(predictor: Predictor, data: Path, out: Path, wanted: Wanted, told: Told = no_word) -> int:
    """Answer every row of `data` into `out` (`.jsonl` or `.csv`), in order; returns how many.

    A call after a kill goes on where it stopped. Raises `UserError` for a row that cannot be answered (what came before
    is kept) and for another kind of file.
    """

    def answer(items: list[Any]) -> list[dict[str, Any]]:
        answers = predictor.predict(items, top_k=wanted.top_k, threshold=wanted.threshold)
        return [record(item, found) for item, found in zip(items, answers, strict=True)]

    return answer_file(
        WholeFile(
            data=data,
            out=out,
            depends_on=(asdict(wanted), [WINDOW_ITEMS, WINDOW_CHARACTERS], predictor.threads),
        ),
        (predictor.folder / MANIFEST).read_bytes(),
        read_items(data, predictor.manifest.reads, wanted.columns, wanted.kept),
        lambda rows: windows(rows, lambda row: item_size(row[0])),
        answer,
        told,
        by_label=wanted.top_k is None,
    )
