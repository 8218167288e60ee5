"""Answers for a whole file: in its order, in bounded memory, and resumed after a kill."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from artifact.predict.answers import Embedding, Filled, Prediction, Result, Span, Tagged
from artifact.predict.folder import MANIFEST
from artifact.predict.predictor import Predictor
from artifact.predict.rows import ItemColumns, read_items
from errors import UserError

WINDOW_ITEMS = 2048
WINDOW_CHARACTERS = 500_000
"""Items are sorted by length within windows, so that a batch has little padding; a window ends with either."""

T = TypeVar("T")
Told = Callable[[int], None]
"""Hears how many rows are answered."""


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


def predict_file(predictor: Predictor, data: Path, out: Path, wanted: Wanted, told: Told = lambda rows: None) -> int:
    """Answer every row of `data` into `out` (`.jsonl` or `.csv`), in order; returns how many.

    Rows are read, answered and written window by window. Until the last is written the answers lie in `out` with
    `.part` behind its name; the same call after a kill goes on behind the last whole window, and gives the same bytes.
    Raises `UserError` for a row that cannot be answered (what came before is kept) and for another kind of file.
    """
    if out.suffix.lower() not in (".jsonl", ".csv"):
        raise UserError(f"{out} is neither .jsonl nor .csv", "name the file that is written with one of them")
    if out.resolve() == data.resolve():
        raise UserError(f"{out} is the file that is read", "name another one with --out")
    part = _PartFile(out, _fingerprint(predictor, data, wanted))
    rows = read_items(data, predictor.manifest.reads, wanted.columns, wanted.kept)
    done = part.rows
    if sum(1 for _ in islice(rows, done)) < done:
        raise UserError(f"{data} has fewer rows than were answered before", f"remove {part.path} and begin again")
    told(done)
    try:
        with part.open() as file:
            for window in windows(rows, lambda row: item_size(row[0])):
                items = [item for item, _ in window]
                answers = predictor.predict(items, top_k=wanted.top_k, threshold=wanted.threshold)
                pairs = zip(window, answers, strict=True)
                records = [{**kept, **record(item, answer)} for (item, kept), answer in pairs]
                file.write(
                    _written(records, out.suffix.lower(), with_header=done == 0, by_label=wanted.top_k is None).encode()
                )
                done += len(window)
                part.note(file, done)
                told(done)
        part.finish()
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    return done


def _written(records: Sequence[dict[str, Any]], suffix: str, *, with_header: bool, by_label: bool) -> str:
    if suffix == ".jsonl":
        return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in records)
    flat = [_flat(each, by_label=by_label) for each in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    if with_header:
        writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(record: dict[str, Any], *, by_label: bool) -> dict[str, Any]:
    """One level of columns: `scores` of all labels become `score:LABEL`, other lists and objects become JSON."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name == "scores" and by_label:
            flat |= {f"score:{label}": score for label, score in value.items()}
        elif name == "labels":
            flat[name] = "|".join(value)
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | tuple) else value
    return flat


def _fingerprint(predictor: Predictor, data: Path, wanted: Wanted) -> str:
    """What the answers depend on: the artifact, the file, and what is asked for."""
    try:
        seen = data.stat()
        manifest = (predictor.folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{data} does not exist", "check the path given with --data") from None
    window = [WINDOW_ITEMS, WINDOW_CHARACTERS]
    parts = [str(data.resolve()), seen.st_size, seen.st_mtime_ns, asdict(wanted), window, predictor.threads]
    return hashlib.sha256(manifest + json.dumps(parts).encode()).hexdigest()


class _PartFile:
    """What of an output file is written so far. A note beside it says how much of it is whole."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out, self.fingerprint = out, fingerprint
        self.path = out.with_name(f"{out.name}.part")
        self.state = out.with_name(f"{out.name}.part.json")
        self.rows = self.size = 0
        try:
            noted = json.loads(self.state.read_bytes())
            if noted["fingerprint"] == fingerprint and self.path.stat().st_size >= noted["bytes"]:
                self.rows, self.size = int(noted["rows"]), int(noted["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing was begun, or nothing that can be gone on with

    def open(self) -> Any:
        try:
            file = self.path.open("r+b" if self.rows else "wb")
            file.truncate(self.size)
            file.seek(self.size)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        return file

    def note(self, file: Any, rows: int) -> None:
        """Make what is written durable, then say so."""
        file.flush()
        os.fsync(file.fileno())
        temporary = self.state.with_name(f"{self.state.name}.new")
        noted = {"fingerprint": self.fingerprint, "rows": rows, "bytes": file.tell()}
        temporary.write_text(json.dumps(noted), encoding="utf-8")
        temporary.replace(self.state)

    def finish(self) -> None:
        self.path.replace(self.out)
        self.state.unlink(missing_ok=True)
