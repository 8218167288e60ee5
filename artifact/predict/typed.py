"""JSON into frozen dataclasses, strictly: what a stranger wrote is either exactly right or refused."""

import dataclasses
import json
import math
import types
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from errors import GateFailed

LARGEST_INTEGER = 2**53
"""JSON's numbers are exact up to here in every reader (RFC 8259, section 6)."""

Built = TypeVar("Built")


def read_json(path: Path, most_bytes: int, *, strict: bool = True) -> dict[str, Any]:
    """A JSON object from a file of at most `most_bytes`.

    Raises `GateFailed` naming the file when it is missing, larger, no JSON object, or, if `strict`, names a field twice
    or has numbers that not every reader takes for the same.
    """
    try:
        if path.exists() and not path.is_file():
            raise GateFailed(f"{path} is no file")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise GateFailed(f"{path} has more than the {most_bytes:,} bytes that are read")
        value = json.loads(data, **(_STRICT if strict else {}))
    except FileNotFoundError:
        raise GateFailed(f"{path} is missing: {path.parent} is not an artifact, or not the whole of one") from None
    except OSError as error:
        raise GateFailed(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise GateFailed(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise GateFailed(f"{path} does not hold a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {max(names, key=names.count)!r} stands there twice")
    return found


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _whole(digits: str) -> int:
    if len(digits) > 17:
        raise ValueError(f"the number {digits[:20]}… is too large")
    return int(digits)


_STRICT: dict[str, Any] = {"object_pairs_hook": _once, "parse_constant": _no_constant, "parse_int": _whole}


def build(kind: type[Built], value: object, where: str) -> Built:
    """A dataclass from the JSON object `value`, its fields built by their types; a field that has a default may lack.

    Types are those of JSON: str, bool, int, float, enums of words, `Literal`, `tuple[X, ...]`, `dict[str, X]`, other
    dataclasses, and `X | None`. Raises `GateFailed` naming the place (`where` and the field) of what is missing,
    unknown or of another type, and of a `ValueError` that the dataclass itself raises.
    """
    if not isinstance(value, dict):
        raise GateFailed(f"{where} is not an object")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        raise GateFailed(f"{where} has a field {unknown[0]!r}, which this version does not know")
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = _convert(hints[name], value[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise GateFailed(f"{where} lacks {name}")
    try:
        return kind(**found)
    except ValueError as error:
        raise GateFailed(f"{where}: {error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(part for part in parts if part is not type(None))
        if value is None and type(None) in parts:
            return None
        return _convert(float if float in parts and isinstance(value, float) else inner, value, where)
    if origin is Literal:
        return _one_of(parts, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise GateFailed(f"{where} is not a list")
        return tuple(_convert(parts[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise GateFailed(f"{where} is not an object")
        return {name: _convert(parts[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if issubclass(kind, Enum):
        return kind(_one_of(tuple(member.value for member in kind), value, where))
    return _SCALARS[kind](value, where)


def _one_of(known: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, str) or value not in known:
        raise GateFailed(f"{where} is {str(value)[:40]!r}, not one of {', '.join(map(str, known))}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise GateFailed(f"{where} is not text")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise GateFailed(f"{where} is neither true nor false")
    return value


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST_INTEGER:
        raise GateFailed(f"{where} is not a whole number")
    return value


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise GateFailed(f"{where} is not a number")
    return float(value)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    str: _text,
    bool: _flag,
    int: _integer,
    float: _number,
}
