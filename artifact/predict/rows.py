"""Rows of the user's files, one after another: a file may be larger than memory."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from artifact.predict.reads import Reads
from errors import UserError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "document")
LABEL_COLUMNS = ("label", "labels", "target", "class", "category")
FIRST_COLUMNS = ("sentence1", "premise", "question1", "text1")
PAIR_COLUMNS = ("text_pair", "sentence2", "hypothesis", "question2", "text2")
WRITTEN_COLUMNS = ("target", "target_text", "summary", "translation")
TRANSCRIPT_COLUMNS = ("transcript", "transcription", "text", "sentence", *WRITTEN_COLUMNS)
LONGEST_LINE = 2**26
csv.field_size_limit(LONGEST_LINE)


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their line numbers, the header being line 1 of a CSV."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is neither CSV nor JSON lines", "give a .csv, .tsv, .jsonl or .parquet file")
    if not path.is_file():
        raise UserError(f"{path} does not exist", "check the path given with --data")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {_bad_line(path)}: not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _bad_line(path: Path) -> int:
    """The first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Lines of a file, none of them longer than `LONGEST_LINE`."""
    number = 1
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise UserError(f"{path}, line {number}: longer than {LONGEST_LINE:,} characters", "split it")
        yield line
        number += 1


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(
            _lines(path, file), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
        )
        start = 1
        try:
            columns = reader.fieldnames or ()
            start = reader.line_num + 1
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}, line {reader.line_num}: not the header's {len(columns)} fields",
                        "quote texts that hold commas or line breaks",
                    )
                yield reader.line_num, row
                start = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}, line {start}: not a readable row ({error})", "close each quote; double those inside a text"
            ) from error


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(path, file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()  # JSON can spell half a character, which is no text
            except (ValueError, RecursionError) as error:
                why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
                raise UserError(f"{path}, line {number}: not JSON ({why})", "write one JSON object per line") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: not a JSON object", "write one JSON object per line")
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow, which is not installed", "pip install pyarrow") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}, after row {number}: not readable Parquet ({error})", "write the file again") from None


_READERS = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".parquet": _parquet_rows,
}


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """Where a row holds the item: columns that the user named, or else the usual ones."""

    text: str | None = None
    pair: str | None = None


USUAL: Mapping[Reads, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Reads.TEXT: ((*TEXT_COLUMNS, *FIRST_COLUMNS), ()),
    Reads.PAIR: ((*FIRST_COLUMNS, "question", *TEXT_COLUMNS), (*PAIR_COLUMNS, "context")),
    Reads.WORDS: (("tokens", "words", *TEXT_COLUMNS), ()),
    Reads.IMAGE: (("image", "file", "path", "image_path"), ()),
    Reads.SOUND: (("audio", "file", "path", "audio_path"), ()),
}
"""Usual columns of each kind of item, and of its second text."""


def read_items(
    path: Path, reads: Reads, columns: ItemColumns, kept: Sequence[str] = ()
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each row's item as `Predictor.predict` takes it, and the values of the columns `kept`.

    Paths of pictures and recordings are relative to the file's own folder. Raises `UserError` naming the file and the
    row or column that is missing or of another kind.
    """
    usual, usual_pair = USUAL[reads]
    names: tuple[str, str | None] | None = None
    for number, row in read_rows(path):
        if names is None:
            first = find_column(path, row, columns.text, usual, "--text-column")
            pair = find_column(path, row, columns.pair, usual_pair, "--pair-column") if usual_pair else None
            names = first, pair
            for name in kept:
                find_column(path, row, name, (), "--keep")
        place = f"{path}, row {number}"
        item = _item(place, row.get(names[0]), names[0], reads, path.parent)
        if names[1] is not None:
            item = (item, _item(place, row.get(names[1]), names[1], Reads.TEXT, path.parent))
        yield item, {name: row.get(name) for name in kept}


def _item(place: str, value: Any, column: str, reads: Reads, folder: Path) -> Any:
    if reads is Reads.WORDS and isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return value
    if not isinstance(value, str):
        raise UserError(f"{place}: column '{column}' is not text", "fix or remove that row")
    return folder / value if reads.is_file else value


def find_column(path: Path, row: Mapping[str, Any], asked: str | None, usual: Sequence[str], flag: str) -> str:
    """The column that was asked for, or else the first usual one; `UserError` naming those that are there."""
    present = [str(name) for name in row]
    if asked is not None:
        if asked in row:
            return asked
        raise UserError(
            f"{path} has no column '{asked}'", f"its columns are: {', '.join(present)}; name one with {flag}"
        )
    by_lower_case = {name.lower(): name for name in reversed(present)}
    for name in usual:
        if name in by_lower_case:
            return by_lower_case[name]
    raise UserError(
        f"{path} has no column named {', '.join(usual[:-1])} or {usual[-1]}",
        f"its columns are: {', '.join(present)}; name one with {flag}",
    )
