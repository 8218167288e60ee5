"""Rows end where they should, whatever the tokens, and no text is told that a stop string takes away."""

from typing import Any, cast

import numpy as np
import pytest

from artifact.generate.pieces import Pieces
from artifact.generate.stopping import RowText, Stopping
from errors import UserError
from tests.artifact.generate.tokenizers_of_all_kinds import byte_fallback, byte_level, id_of


class Spelled:
    """Pieces of a list: token 3 is the piece with the number 3."""

    def __init__(self, pieces: list[str], rest: str = "") -> None:
        self._pieces, self._rest = pieces, rest

    def push(self, token_id: int) -> str:
        return self._pieces[token_id]

    def finish(self) -> str:
        return self._rest


def run(pieces: list[str], *stops: str, rest: str = "", limit: int = 1000) -> tuple[list[str], str | None]:
    row = RowText(cast("Pieces", Spelled([*pieces, ""], rest)), Stopping(limit, frozenset([len(pieces)]), stops))
    told = []
    for token in range(len(pieces) + 1):
        told.append(row.push(token))
        if row.reason:
            break
    return told, row.reason


def test_a_token_that_ends_has_no_text() -> None:
    assert run(["a", "b"], rest="?") == (["a", "b", "?"], "end")
    row = RowText(cast("Pieces", Spelled(["a", "b", "c"])), Stopping(9, frozenset([1, 2])))
    assert [row.push(0), row.push(2)] == ["a", ""]
    assert row.new_tokens == 2


def test_the_limit_counts_all_tokens() -> None:
    assert run(["a", "b", "c"], limit=2, rest="!") == (["a", "b!"], "length")
    assert run(["a", "b"], limit=3) == (["a", "b", ""], "end")


def test_nothing_comes_after_the_end() -> None:
    row = RowText(cast("Pieces", Spelled(["a"])), Stopping(1))
    row.push(0)
    with pytest.raises(ValueError, match="length"):
        row.push(0)


@pytest.mark.parametrize(
    ("pieces", "stops", "told", "reason"),
    [
        (["one", "\nUs", "er:", " two"], ["\nUser:"], ["one", "", ""], "stop"),
        (["on", "e\nUser: two"], ["\nUser:"], ["on", "e"], "stop"),
        (["a\n", "User", "s"], ["\nUser:"], ["a", "", "\nUsers", ""], "end"),
        (["aa", "aa", "b"], ["aab"], ["", "aa", ""], "stop"),
        (["a", "b", "a", "b", "c"], ["abc"], ["", "", "ab", "", ""], "stop"),
        (["x", "ab"], ["abc", "b"], ["x", "a"], "stop"),
        (["xabc"], ["abc", "b"], ["xa"], "stop"),
        (["xabc"], ["bc", "abc"], ["x"], "stop"),
        (["##"], ["###"], ["", "##"], "end"),
        (["STOP"], ["STOP"], [""], "stop"),
    ],
)
def test_stop_strings(pieces: list[str], stops: list[str], told: list[str], reason: str) -> None:
    assert run(pieces, *stops) == (told, reason)


def test_what_was_held_back_may_complete_a_stop_string() -> None:
    assert run(["a", "S"], "ST", rest="T") == (["a", "", ""], "stop")
    assert run(["a", "S"], "ST", rest="U") == (["a", "", "SU"], "end")
    assert run(["a", "S"], "ST", rest="T", limit=2) == (["a", ""], "stop")


def test_where_a_text_ends_does_not_depend_on_its_tokens() -> None:
    random = np.random.default_rng(9)
    for _ in range(3000):
        letters = random.choice(["a", "b", "c"], size=int(random.integers(1, 16))).tolist()
        stops = ["".join(random.choice(["a", "b", "c"], size=int(random.integers(1, 5)))) for _ in range(2)]
        text = "".join(letters)
        ends = [(end, end - len(stop)) for stop in stops for end in range(len(text) + 1) if text[:end].endswith(stop)]
        expected = (text[: min(ends)[1]], "stop") if ends else (text, "end")
        cuts = sorted(random.integers(0, len(text) + 1, size=3).tolist())
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        told, reason = run(pieces, *stops)
        assert ("".join(told), reason) == expected, (pieces, stops)


def test_with_real_tokens() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("The fox 😀<|end|> and").ids
    row = RowText(Pieces(tokenizer), Stopping(200, frozenset(), ("😀<|end|>",)))
    told = []
    while row.reason is None:
        told.append(row.push(ids[row.new_tokens]))
    assert "".join(told) == "The fox "


def test_a_newline_that_is_a_byte_is_found_at_the_end() -> None:
    tokenizer = byte_fallback()
    ids = [id_of(tokenizer, token) for token in ("▁a", "<0x0A>", "</s>")]
    row = RowText(Pieces(tokenizer), Stopping(9, frozenset(ids[-1:]), ("\n",)))
    assert [row.push(token) for token in ids] == ["a", "", ""]
    assert row.reason == "stop"


@pytest.mark.parametrize(
    ("values", "flag"), [({"max_new_tokens": 0}, "--max-new-tokens"), ({"stop_strings": ("a", "")}, "--stop")]
)
def test_what_cannot_be_is_refused_by_its_flag(values: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag) as caught:
        Stopping(**{"max_new_tokens": 5} | values)
    assert caught.value.hint
