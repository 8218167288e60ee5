"""An ONNX file looked through before any engine opens it, without the onnx package.

The file is a protobuf message (onnx.proto3 of ONNX 1.23). Only what can reach outside of the file is looked at: where
weights lie, and operators that would need code from elsewhere. Everything else is skipped by its length.
"""

import mmap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from errors import GateFailed

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that onnxruntime itself has; those of any other domain come from a library that somebody must load."""

DEEPEST = 32
MOST_FIELDS = 2_000_000

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

# Which fields of a message are messages, by the numbers of onnx.proto3, and what they are.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DOMAIN = {"node": 7, "opset": 1, "function": 10}


class Field(NamedTuple):
    """One field of a message: its number, how it is written, and where its bytes begin and end."""

    number: int
    wire: int
    start: int
    end: int


def check_graph(path: Path, companions: Collection[str] = ()) -> None:
    """Refuse an ONNX file that is damaged or reaches outside.

    `companions` are the files beside it that may hold its weights. Raises `GateFailed` for what is no ONNX model or is
    cut short, weights in any other file or beyond the end of theirs, and operators of a domain that onnxruntime does
    not have.
    """
    with opened(path) as file:
        _Check(file, companions).run()


@contextmanager
def opened(path: Path) -> Iterator["Message"]:
    """A protobuf file without copying it into memory. Raises `GateFailed` when it cannot be read."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield Message(path, data)
    except (OSError, ValueError) as error:
        raise GateFailed(f"{path} cannot be read: {error}") from None


class Message:
    """The bytes of a protobuf file, read field by field. Every method raises `GateFailed` for what is not protobuf."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data = path, data
        self._fields = 0

    def text(self, field: Field) -> str:
        """A field's bytes as a name."""
        if field.end - field.start > 4096:
            raise self.damaged("a name in it has more than 4,096 bytes")
        return self.data[field.start : field.end].decode("utf-8", "replace")

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of one message (protobuf's wire format)."""
        at = start
        while at < end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise self.damaged(f"it has more than {MOST_FIELDS:,} fields")
            tag, at = self.number(at, end)
            if tag >= 2**32:  # readers of protobuf differ in what they make of it
                raise self.damaged(f"a field before byte {at} has no number")
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                _, after = self.number(at, end)
            elif wire == LENGTH:
                length, at = self.number(at, end)
                after = at + length
            elif wire in (FIXED32, FIXED64):
                after = at + (4 if wire == FIXED32 else 8)
            else:
                raise self.damaged(f"byte {at} is of no known kind")
            if number == 0 or after > end:
                raise self.damaged(f"it ends within a field at byte {at}")
            yield Field(number, wire, at, after)
            at = after

    def number(self, at: int, end: int) -> tuple[int, int]:
        """The number that begins at a byte, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise self.damaged(f"it ends within a number at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self.damaged(f"a number before byte {at} is too long")

    def damaged(self, why: str) -> GateFailed:
        """The error for a file that is not what it should be."""
        return GateFailed(f"{self.path} is not a whole ONNX file: {why}; copy the artifact again")


class _Check:
    def __init__(self, file: Message, companions: Collection[str]) -> None:
        self.file, self.path, self.companions = file, file.path, companions
        self.has_graph = self.has_opset = False

    def run(self) -> None:
        self._message("model", 0, len(self.file.data), 0)
        if not self.has_graph or not self.has_opset:
            raise self.file.damaged("it has no graph, or no opset")

    def _message(self, kind: str, start: int, end: int, depth: int) -> None:
        if depth > DEEPEST:
            raise self.file.damaged(f"its graphs are nested more than {DEEPEST} deep")
        inner, entries = _MESSAGES.get(kind, {}), {}
        for field in self.file.fields(start, end):
            if field.wire != LENGTH:
                continue
            child = inner.get(field.number)
            if field.number == _DOMAIN.get(kind):
                self._domain(self.file.text(field))
            elif child == "entry":
                key, value = self._entry(field)
                entries[key] = value
            elif child is not None:
                self.has_graph |= child == "graph"
                self.has_opset |= child == "opset"
                self._message(child, field.start, field.end, depth + 1)
        if entries:
            self._external(entries)

    def _domain(self, domain: str) -> None:
        if domain not in KNOWN_DOMAINS:
            raise GateFailed(
                f"{self.path} uses custom operators ({domain!r}), which onnxruntime lacks; no code is loaded for them"
            )

    def _external(self, entries: dict[str, str]) -> None:
        """Weights in another file: only one that was packed beside this one, and only within it."""
        location = entries.get("location", "")
        if location not in self.companions or "/" in location or "\\" in location:
            raise GateFailed(f"{self.path} wants weights from {location!r}, which was not packed with it")
        beside = self.path.with_name(location)
        if beside.is_symlink() or not beside.is_file():
            raise GateFailed(f"{beside} is missing, or a link; copy the artifact again")
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
        except ValueError:
            raise self.file.damaged("a place in its weights is not a number") from None
        if offset < 0 or length < 0 or offset + length > beside.stat().st_size:
            raise GateFailed(f"{self.path} wants weights beyond the end of {location}; copy the artifact again")

    def _entry(self, field: Field) -> tuple[str, str]:
        parts = self.file.fields(field.start, field.end)
        words = {item.number: self.file.text(item) for item in parts if item.wire == LENGTH}
        return words.get(1, ""), words.get(2, "")
