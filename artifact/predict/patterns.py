"""Regular expressions of a tokenizer, judged before they meet a text: one can be written to run for years."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_PATTERN = 20_000
MOST_REPEATS = 2
"""Repetitions without an end in one branch; the tokenizers of GPT-4o, Llama 3 and DeepSeek have two at most."""
MOST_COUNTED = 1_000
DEEPEST_GROUP = 20

OPENERS = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|<[A-Za-z_]\w*>|[ims]*(?:-[ims]+)?:))?", re.ASCII)
ESCAPES = re.compile(
    r"\\(?:[pP](?:\{\^?[\w ]{1,40}\}|[A-Z])|x\{[0-9A-Fa-f]{1,6}\}|[sSdDwWhHnrtfvbBAzZu0x]|[^\w\s])", re.ASCII
)
COUNTS = re.compile(r"\{(\d{0,6})(,?)(\d{0,6})\}", re.ASCII)


def patterns_of(value: Any) -> Iterator[str]:
    """Every regular expression in a parsed `tokenizer.json`, wherever it stands outside of the vocabulary."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("Regex", "pattern") and isinstance(inner, str):
                yield inner
            elif name not in ("vocab", "merges", "added_tokens"):
                yield from patterns_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from patterns_of(inner)


def danger(pattern: str) -> str | None:
    """Why matching this may take longer than a small power of the text's length, or `None`.

    Only what published tokenizers are written with is understood, and everything else refused: characters, classes,
    plain groups and looks around, quantifiers. A part that can match in several ways must not be repeated, because the
    ways multiply; a reference back to a group makes matching NP-hard (Aho, Handbook of Theoretical Computer Science,
    1990).
    """
    if len(pattern) > MOST_PATTERN:
        return f"it has {len(pattern):,} characters"
    try:
        reader = _Reader(pattern)
        reader.branches(0)
        if reader.at < len(pattern):
            return "its brackets do not match"
    except _DangerError as error:
        return str(error)
    return None


class _DangerError(Exception):
    """Says why a pattern is not used."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a part of a pattern may do: endless repetitions in a row, whether it matches in several ways, and how often
    its counted repetitions repeat at most."""

    repeats: int = 0
    varied: bool = False
    count: int = 1


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def branches(self, depth: int) -> _Part:
        """All alternatives up to a closing bracket or the end."""
        if depth > DEEPEST_GROUP:
            raise _DangerError(f"its groups are more than {DEEPEST_GROUP} deep")
        found = [self._branch(depth)]
        while self._next() == "|":
            self.at += 1
            found.append(self._branch(depth))
        return _Part(
            max(part.repeats for part in found),
            len(found) > 1 or found[0].varied,
            max(part.count for part in found),
        )

    def _branch(self, depth: int) -> _Part:
        repeats, varied, count = 0, False, 1
        while self._next() not in ("", "|", ")"):
            part = self._quantified(self._atom(depth))
            repeats, varied, count = repeats + part.repeats, varied or part.varied, max(count, part.count)
            if repeats > MOST_REPEATS:
                raise _DangerError(f"it has more than {MOST_REPEATS} endless repetitions in a row")
        return _Part(repeats, varied, count)

    def _next(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _atom(self, depth: int) -> _Part:
        """One character, escape, class or group."""
        sign = self._next()
        if sign == "(":
            self._take(OPENERS, "a group of a kind that is not known here")
            if self.pattern[self.at : self.at + 1] in ("?", "*"):
                raise _DangerError("a group of a kind that is not known here")
            inner = self.branches(depth + 1)
            if self._next() != ")":
                raise _DangerError("its brackets do not match")
            self.at += 1
            return inner
        if sign == "[":
            self._class()
        elif sign == "\\":
            self._take(ESCAPES, "an escape that is not known here, such as one that refers back to a group")
        elif sign in "*+?":
            raise _DangerError("a quantifier that quantifies nothing")
        else:
            self.at += 1
        return _Part()

    def _take(self, kind: "re.Pattern[str]", otherwise: str) -> None:
        found = kind.match(self.pattern, self.at)
        if found is None:
            raise _DangerError(otherwise)
        self.at = found.end()

    def _class(self) -> None:
        """`[…]`, with classes inside."""
        depth = 0
        while True:
            sign = self._next()
            if sign == "[":
                depth += 1
                self.at += 1
                self.at += self._next() == "^"
                if self._next() == "]":
                    raise _DangerError("a class that begins with its own end")
            elif sign == "]":
                depth -= 1
                self.at += 1
                if depth == 0:
                    return
            elif sign == "\\":
                self._take(ESCAPES, "an escape that is not known here")
            elif sign == "":
                raise _DangerError("its brackets do not match")
            else:
                self.at += 1

    def _quantified(self, part: _Part) -> _Part:
        """A part with the one quantifier behind it, if there is one."""
        sign = self._next()
        counted = COUNTS.match(self.pattern, self.at) if sign == "{" else None
        if counted is not None and not (counted[1] or counted[3]):
            counted = None  # a brace that stands for itself
        if sign not in ("*", "+", "?") and counted is None:
            return part
        self.at = counted.end() if counted else self.at + 1
        lazy_or_possessive = ("?",) if counted else ("?", "+")
        self.at += self._next() in lazy_or_possessive
        if self._next() in ("*", "+", "?") or COUNTS.match(self.pattern, self.at):
            raise _DangerError("a quantifier of a quantifier")
        least, most = _bounds(sign, counted)
        if (most is None or most > 1) and (part.varied or part.repeats):
            raise _DangerError("it repeats a part that matches in several ways")
        if most is not None and most * part.count > MOST_COUNTED:
            raise _DangerError(f"it counts further than {MOST_COUNTED:,}")
        return _Part(part.repeats + (most is None), part.varied or least != most, part.count * (most or 1))


def _bounds(sign: str, counted: "re.Match[str] | None") -> tuple[int, int | None]:
    """The least and the most times (`None`: without an end)."""
    if counted is None:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
    least = int(counted[1] or 0)
    if not counted[2]:
        return least, least
    return least, int(counted[3]) if counted[3] else None
