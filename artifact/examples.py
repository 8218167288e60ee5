"""Labelled texts from the user's files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artifact.predict.reads import Reads
from artifact.predict.rows import (
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    TRANSCRIPT_COLUMNS,
    USUAL,
    find_column,
    read_rows,
)
from artifact.predict.tokens import TextItem
from artifact.records import sha256_bytes
from errors import UserError

Label = str | tuple[str, ...]
"""A label, or several: those that apply, or one for each word."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts, pairs of texts or lists of words, and their labels as written in the file.

    `text_column` and `label_column` say where they were found, and `places` how a message names each row of the file.
    """

    texts: tuple[TextItem, ...]
    labels: tuple[Label, ...]
    source: Path
    text_column: str
    label_column: str
    places: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def unlabelled(cls, texts: Sequence[str], source: Path) -> "Examples":
        """Texts that have no labels: of a language model, what comes next is right."""
        return cls(tuple(texts), ("",) * len(texts), source, "", "", (str(source),) * len(texts))

    def select(self, rows: Sequence[int]) -> "Examples":
        """The examples at these positions, in this order."""
        return Examples(
            texts=tuple(self.texts[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            source=self.source,
            text_column=self.text_column,
            label_column=self.label_column,
            places=tuple(self.places[row] for row in rows),
        )

    @property
    def sha256(self) -> str:
        """Hash of the texts and labels, whatever the file format."""
        return sha256_bytes(json.dumps([self.texts, self.labels]).encode())


def read_examples(
    path: Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    where: dict[str, str] | None = None,
    usual_texts: Sequence[str] = TEXT_COLUMNS,
    usual_labels: Sequence[str] = LABEL_COLUMNS,
) -> Examples:
    """Read labelled texts from a `.csv`, `.tsv`, `.jsonl` or `.json` file.

    Columns that are not named are guessed from the usual names. `where` keeps only rows with these values. Raises
    `UserError` naming the file and the row or column when something is missing, empty or not text.
    """
    texts: list[str] = []
    labels: list[str] = []
    places: list[str] = []
    text_name = label_name = ""
    for number, row in read_rows(path):
        if not text_name:
            text_name = find_column(path, row, text_column, usual_texts, "--text-column")
            label_name = find_column(path, row, label_column, usual_labels, "--label-column")
            for column in where or ():
                find_column(path, row, column, (), "--where")
        if where and any(str(row.get(column)) != value for column, value in where.items()):
            continue
        text, label = row.get(text_name), row.get(label_name)
        place = f"{path}, row {number}"
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{place}: column '{text_name}' is empty or not text", "fill or remove that row")
        if label is None or isinstance(label, list | dict) or str(label).strip() == "":
            raise UserError(f"{place}: column '{label_name}' has no label", "fill or remove that row")
        texts.append(text)
        labels.append(str(label).strip())
        places.append(place)
    if not texts:
        kept = "".join(f" with {column}={value}" for column, value in (where or {}).items())
        raise UserError(
            f"{path} holds no examples{kept}", "it needs a header line and at least one row of text and label"
        )
    return Examples(tuple(texts), tuple(labels), path, text_name, label_name, tuple(places))


def read_heard(
    path: Path, *, text_column: str | None = None, label_column: str | None = None, where: dict[str, str] | None = None
) -> Examples:
    """Read recordings, whose absolute paths are the texts, and what is said in them.

    Raises `UserError` as `read_examples` does, and for a recording that is not there.
    """
    found = read_examples(
        path,
        text_column=text_column,
        label_column=label_column,
        where=where,
        usual_texts=USUAL[Reads.SOUND][0],
        usual_labels=TRANSCRIPT_COLUMNS,
    )
    files = [(path.parent / str(text)).resolve() for text in found.texts]
    for place, file in zip(found.places, files, strict=True):
        if not file.is_file():
            reason = f"{place}: there is no recording {file}"
            raise UserError(reason, "paths are relative to the folder of the data file")
    return replace(found, texts=tuple(map(str, files)))


def read_texts(path: Path, *, text_column: str | None = None) -> tuple[str, ...]:
    """Read texts alone; labels need not be there. Raises `UserError` as `read_examples` does."""
    texts: list[str] = []
    name = ""
    for number, row in read_rows(path):
        name = name or find_column(path, row, text_column, TEXT_COLUMNS, "--text-column")
        text = row.get(name)
        if not isinstance(text, str):
            raise UserError(f"{path}, row {number}: column '{name}' is not text", "fix or remove that row")
        texts.append(text)
    if not texts:
        raise UserError(f"{path} holds no texts", "it needs a header line and at least one row")
    return tuple(texts)
