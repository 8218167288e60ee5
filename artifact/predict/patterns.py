"""Regular expressions of a tokenizer, judged before they meet a text: one can be written to run for years."""

from collections.abc import Iterator
from typing import Any

MOST_PATTERN = 20_000
MOST_REPEATS = 4
"""Unbounded repetitions side by side in one branch. Those of GPT-4's or Llama's tokenizers have two or three."""

COUNTED_AS_UNBOUNDED = 1_000
REFERENCES = tuple("123456789kgRX")
"""What follows a backslash where an earlier group is meant, or a part whose length is not plain."""


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

    A repetition inside of a repetition can be tried in exponentially many ways, and a reference back to a group makes
    matching NP-hard (Aho, Handbook of Theoretical Computer Science, 1990). Neither occurs in published tokenizers.
    """
    if len(pattern) > MOST_PATTERN:
        return f"it has {len(pattern):,} characters"
    groups = [_Group()]
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "(":
            groups.append(_Group())
            at = _group_start(pattern, at)
        elif sign == "|":
            groups[-1].end_branch()
            at += 1
        else:
            if sign == ")" and len(groups) == 1:
                return "its brackets do not match"
            if sign == "\\" and (following := pattern[at + 1 : at + 2]) in REFERENCES:
                return f"it refers back to a group (\\{following})"
            atom = groups.pop() if sign == ")" else _Group()
            atom.end_branch()
            repeats, at = _repeats(pattern, _atom_end(pattern, at))
            if why := groups[-1].add(atom, repeats):
                return why
    return None if len(groups) == 1 else "its brackets do not match"


def _atom_end(pattern: str, at: int) -> int:
    """The place behind one character, class, escape, or closing bracket."""
    if pattern[at] == "[":
        return _class_end(pattern, at)
    if pattern[at] != "\\":
        return at + 1
    if pattern[at + 1 : at + 2] in ("p", "P", "x") and pattern[at + 2 : at + 3] == "{":
        return pattern.find("}", at) + 1 or len(pattern)
    return at + 2


class _Group:
    """Repetitions without an end: in the branch that is being read, and the most in any branch."""

    def __init__(self) -> None:
        self.repeats_here = self.repeats = 0

    def add(self, inner: "_Group", repeats: int) -> str | None:
        """Read on behind a part that is repeated without an end, or not; what makes that dangerous, or `None`."""
        if repeats and inner.repeats:
            return "it repeats a part that repeats itself"
        self.repeats_here += inner.repeats or repeats
        return f"it has more than {MOST_REPEATS} repetitions in a row" if self.repeats_here > MOST_REPEATS else None

    def end_branch(self) -> None:
        self.repeats = max(self.repeats, self.repeats_here)
        self.repeats_here = 0


def _class_end(pattern: str, at: int) -> int:
    """The place behind `[…]`, which may hold other classes and its own bracket as the first character."""
    depth = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 2
            continue
        if pattern[at] == "[":
            depth += 1
            at += 1 + (pattern[at + 1 : at + 2] == "^")
            at += pattern[at : at + 1] == "]"
            continue
        if pattern[at] == "]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return at


def _group_start(pattern: str, at: int) -> int:
    """The place behind `(`, `(?:`, `(?i:`, `(?=`, `(?<!`, `(?>` or `(?<name>`."""
    at += 1
    if pattern[at : at + 1] != "?":
        return at
    at += 1
    while at < len(pattern) and pattern[at] not in ":=!>)":
        at += 1
    return at if pattern[at : at + 1] == ")" else at + 1


def _repeats(pattern: str, at: int) -> tuple[int, int]:
    """Whether a repetition without an end stands at this place (0 or 1), and the place behind all of them."""
    repeats = 0
    while at < len(pattern) and pattern[at] in "*+?{":
        if pattern[at] == "{":
            end = pattern.find("}", at)
            bounds = pattern[at + 1 : end].split(",") if end > 0 else [""]
            if not all(bound.strip().isdigit() or not bound.strip() for bound in bounds) or bounds == [""]:
                return repeats, at  # a brace that stands for itself
            most = bounds[-1].strip()
            repeats |= not most or int(most) >= COUNTED_AS_UNBOUNDED or (len(bounds) == 1 and int(most) > 100)
            at = end + 1
        else:
            repeats |= pattern[at] in "*+"
            at += 1
    return int(repeats), at
