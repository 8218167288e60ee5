"""The tables that an ONNX graph looks rows up in, read without the onnx package and without loading its weights."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from artifact.predict.graph_file import LENGTH, Field, Message, opened

# Field numbers of onnx.proto3 (ONNX 1.23).
GRAPH_OF_MODEL = 7
NODE, TENSOR, INPUT = 1, 5, 11
NODE_INPUT, NODE_OUTPUT, OPERATOR, ATTRIBUTE = 1, 2, 4, 5
DIMENSION, TENSOR_NAME = 1, 8
INTEGER = 3
INPUT_NAME = 1

SAME_NUMBERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators between an input and its table that leave its numbers as they are."""


def table_rows(graph: Path) -> dict[str, int]:
    """For each input of a graph that looks up rows of a weight (`Gather` on its first axis): how many rows there are.

    The smallest table counts. Raises `GateFailed` for a file that is no ONNX model.
    """
    with opened(graph) as file:
        model = _parts(file, Field(0, LENGTH, 0, len(file.data)))
        return _rows(file, _parts(file, model[GRAPH_OF_MODEL][0])) if model[GRAPH_OF_MODEL] else {}


def _rows(file: Message, graph: Mapping[int, list[Field]]) -> dict[str, int]:
    tables = dict(_first_axis(file, tensor) for tensor in graph[TENSOR])
    sources = {name: name for name in (_text(file, _parts(file, item), INPUT_NAME) for item in graph[INPUT])}
    rows: dict[str, int] = {}
    for node in graph[NODE]:
        parts = _parts(file, node)
        operator = _text(file, parts, OPERATOR)
        if operator not in SAME_NUMBERS and operator != "Gather":
            continue
        inputs = [file.text(item) for item in parts[NODE_INPUT]]
        if operator in SAME_NUMBERS and inputs[0] in sources:
            sources[_text(file, parts, NODE_OUTPUT)] = sources[inputs[0]]
        elif operator == "Gather" and inputs[0] in tables and inputs[1] in sources and _axis(file, parts) == 0:
            source = sources[inputs[1]]
            rows[source] = min(rows.get(source, tables[inputs[0]]), tables[inputs[0]])
    return rows


def _parts(file: Message, message: Field) -> defaultdict[int, list[Field]]:
    """The fields of a message by their numbers."""
    parts = defaultdict[int, list[Field]](list)
    for field in file.fields(message.start, message.end):
        parts[field.number].append(field)
    return parts


def _first_axis(file: Message, tensor: Field) -> tuple[str, int]:
    parts = _parts(file, tensor)
    return _text(file, parts, TENSOR_NAME), next((_number(file, item) for item in parts[DIMENSION]), 0)


def _axis(file: Message, node: Mapping[int, list[Field]]) -> int:
    attributes = (_parts(file, item) for item in node[ATTRIBUTE])
    return next((_number(file, item) for parts in attributes for item in parts[INTEGER]), 0)


def _text(file: Message, parts: Mapping[int, list[Field]], number: int) -> str:
    return next((file.text(field) for field in parts[number]), "")


def _number(file: Message, field: Field) -> int:
    """A field's number; of several that are packed, the first."""
    return file.number(field.start, field.end)[0]
