"""A whole file answered: in its order, in bounded memory, and gone on with after a kill."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from errors import UserError

Told = Callable[[int], None]
"""Hears how many rows are answered."""

AskedRow = tuple[Any, dict[str, Any]]
"""An item, and the columns that are carried over."""


def no_word(rows: int) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class WholeFile:
    """Where the rows come from and the answers go, and everything that the answers depend on."""

    data: Path
    out: Path
    depends_on: tuple[Any, ...]

    def fingerprint(self, manifest: bytes) -> str:
        """What the answers depend on, with the file as it is now and the artifact's manifest."""
        try:
            seen = self.data.stat()
        except FileNotFoundError:
            raise UserError(f"{self.data} does not exist", "check the path given with --data") from None
        parts = [str(self.data.resolve()), seen.st_size, seen.st_mtime_ns, *self.depends_on]
        return hashlib.sha256(manifest + json.dumps(parts).encode()).hexdigest()


def answer_file(
    task: WholeFile,
    manifest: bytes,
    rows: Iterator[AskedRow],
    windows: Callable[[Iterable[AskedRow]], Iterator[list[AskedRow]]],
    answer: Callable[[list[Any]], Sequence[dict[str, Any]]],
    told: Told = no_word,
    *,
    by_label: bool = False,
) -> int:
    """Answer every row into `task.out` (`.jsonl` or `.csv`), in order; returns how many.

    Rows are read, answered and written window by window. Until the last is written the answers lie in `out` with
    `.part` behind its name; the same call after a kill goes on behind the last whole window, and gives the same bytes.
    Raises `UserError` for a row that cannot be answered (what came before is kept) and for another kind of file.
    """
    data, out = task.data, task.out
    if out.suffix.lower() not in (".jsonl", ".csv"):
        raise UserError(f"{out} is neither .jsonl nor .csv", "name the file that is written with one of them")
    if out.resolve() == data.resolve():
        raise UserError(f"{out} is the file that is read", "name another one with --out")
    part = _PartFile(out, task.fingerprint(manifest))
    done = part.rows
    if sum(1 for _ in islice(rows, done)) < done:
        raise UserError(f"{data} has fewer rows than were answered before", f"remove {part.path} and begin again")
    told(done)
    try:
        with part.open() as file:
            for window in windows(rows):
                answers = answer([item for item, _ in window])
                records = [{**kept, **found} for (_, kept), found in zip(window, answers, strict=True)]
                text = _written(records, out.suffix.lower(), with_header=done == 0, by_label=by_label)
                file.write(text.encode())
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
