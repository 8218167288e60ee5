"""Pieces, joined, are what the tokenizer decodes at once."""

from collections.abc import Callable
from typing import cast
from unittest.mock import patch

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders

from artifact.generate import pieces as module
from artifact.generate.pieces import Pieces
from errors import UserError
from tests.artifact.generate.tokenizers_of_all_kinds import ALL, TEXTS, byte_fallback, byte_level, id_of, word_piece

Make = Callable[[], Tokenizer]


def told(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    pieces = Pieces(tokenizer)
    return [*map(pieces.push, ids), pieces.finish()]


@pytest.mark.parametrize("make", ALL)
def test_texts_come_back_whole(make: Make) -> None:
    tokenizer = make()
    for text in (*TEXTS, " ".join(TEXTS) * 3):
        ids = tokenizer.encode(text).ids
        assert "".join(told(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("make", ALL)
def test_ids_at_random_come_back_whole(make: Make) -> None:
    """Special tokens, halves of characters, and ids that no token has are among them."""
    tokenizer = make()
    random = np.random.default_rng(2)
    for length in (1, 2, 3, 5, 17, 18, 40, 300):
        for _ in range(60):
            ids = random.integers(0, tokenizer.get_vocab_size() + 2, size=length).tolist()
            assert "".join(told(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True), ids


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_bytes_at_random_come_back_whole(make: Make) -> None:
    """Bytes that no text has, among bytes of texts: leads without followers, followers without leads, long runs."""
    tokenizer = make()
    spelled = pre_tokenised_bytes(tokenizer)
    random = np.random.default_rng(4)
    some = [0x41, 0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF]
    for _ in range(1500):
        data = random.choice(some, size=int(random.integers(1, 40))).tolist()
        if random.random() < 0.5:
            data += "😀é".encode()
        ids = [spelled[byte] for byte in data]
        if random.random() < 0.5:
            ids.insert(int(random.integers(len(ids))), id_of(tokenizer, "</s>"))
        if random.random() < 0.5:
            ids.insert(int(random.integers(len(ids))), id_of(tokenizer, "b"))
        assert "".join(told(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True), ids


def pre_tokenised_bytes(tokenizer: Tokenizer) -> list[int]:
    """The id of each byte."""
    if tokenizer.token_to_id("<0x00>") is not None:
        return [id_of(tokenizer, f"<0x{byte:02X}>") for byte in range(256)]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [id_of(tokenizer, letters[byte]) for byte in range(256)]


def test_a_character_is_told_with_its_last_byte() -> None:
    tokenizer = byte_level()
    spelled = pre_tokenised_bytes(tokenizer)
    ids = [spelled[byte] for byte in "a😀b".encode()]
    assert told(tokenizer, ids) == ["a", "", "", "", "😀", "b", ""]
    assert told(tokenizer, ids[:3]) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_run_of_bytes_is_told_when_it_ends() -> None:
    tokenizer = byte_fallback()
    run = [id_of(tokenizer, f"<0x{byte:02X}>") for byte in "€".encode()]
    assert told(tokenizer, [*run, id_of(tokenizer, "▁a")]) == ["", "", "", "€ a", ""]
    assert told(tokenizer, run) == ["", "", "", "€"]
    assert told(tokenizer, [*run, run[0]]) == ["", "", "", "", "\N{REPLACEMENT CHARACTER}" * 4]


def test_only_the_first_space_is_taken_off() -> None:
    tokenizer = byte_fallback()
    the = id_of(tokenizer, "▁the")
    start = id_of(tokenizer, "<s>")
    assert told(tokenizer, [start, the, the, start, the]) == ["", "the", " the", "", " the", ""]


def test_clean_up_is_the_decoders() -> None:
    tokenizer = word_piece()
    ids = tokenizer.encode("it, it").ids
    assert "".join(told(tokenizer, ids)) == "it, it"


def test_the_work_for_a_token_does_not_grow() -> None:
    class Counting:
        def __init__(self, tokenizer: Tokenizer) -> None:
            self._tokenizer, self.decoded = tokenizer, 0

        def __getattr__(self, name: str) -> object:
            return getattr(self._tokenizer, name)

        def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
            self.decoded += len(ids)
            return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    for make in ALL:
        counting = Counting(make())
        ids = np.random.default_rng(1).integers(0, 20, size=500).tolist()
        if make is byte_level:
            ids += [pre_tokenised_bytes(counting._tokenizer)[0x80]] * 500
        told(cast("Tokenizer", counting), ids)
        assert counting.decoded <= len(ids) * (module.LONGEST_WINDOW + module.CONTEXT)


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")]),
        decoders.Sequence([decoders.ByteLevel(), decoders.Replace(Regex(" +"), " ")]),
        decoders.Strip(" ", 50, 0),
    ],
)
def test_a_decoder_that_rewrites_is_refused(decoder: decoders.Decoder) -> None:
    tokenizer = byte_level()
    tokenizer.decoder = decoder
    with pytest.raises(UserError, match="not sure before its end") as caught:
        Pieces(tokenizer)
    assert caught.value.hint


def test_text_that_is_taken_back_is_our_bug_and_is_told() -> None:
    tokenizer = byte_level()
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")])
    with patch.object(module, "_check_local"):
        pieces = Pieces(tokenizer)
    assert pieces.push(id_of(tokenizer, "a")) == "a"
    with pytest.raises(ValueError, match="took back 'a'"):
        pieces.push(id_of(tokenizer, "b"))
