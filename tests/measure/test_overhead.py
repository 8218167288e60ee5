"""What tokens take besides the engine is told apart from it."""

from pathlib import Path
from unittest.mock import patch

import pytest

from artifact.tokenizer import read_limits, text_encoder
from measure.overhead import CHOICES, overhead
from tests.conftest import SENTENCES
from tests.fakes import FakeClock


class Stepping:
    """A clock that is asked before and after each thing; what lies between takes so long."""

    def __init__(self, spans: list[float]) -> None:
        self._clock, self._spans, self._asked = FakeClock(), iter(spans), 0

    def __call__(self) -> float:
        self._asked += 1
        if self._asked % 2 == 0:
            self._clock.advance(next(self._spans))
        return self._clock()


def test_each_part_is_the_median_of_its_own_calls(learnt_llama: Path) -> None:
    encoder = text_encoder(learnt_llama, read_limits(learnt_llama))
    lengths = [len(item["input_ids"]) for item in encoder.encode(SENTENCES)]
    tokens = sum(lengths)
    texts = [3.0 * length for length in lengths]
    told, chosen, drawn = [2.0] * (tokens - 1) + [90.0], [5.0] * (CHOICES - 2) + [1.0, 70.0], [7.0] * CHOICES
    found = overhead(learnt_llama, encoder, SENTENCES, Stepping([*texts, *told, *chosen, *drawn]))
    assert (found.tokenise_s, found.choose_s, found.draw_s, found.tell_s) == pytest.approx((3, 5, 7, 2))


def test_a_text_without_tokens_takes_nothing(learnt_llama: Path) -> None:
    """Many tokenizers add nothing to an empty text; this one would."""
    encoder = text_encoder(learnt_llama, read_limits(learnt_llama))
    usual = encoder.encode
    with patch.object(
        type(encoder), "encode", lambda self, texts: [{"input_ids": []}] if texts == [""] else usual(texts)
    ):
        found = overhead(learnt_llama, encoder, ("", *SENTENCES))
    assert (found.tokenise_s or 0) > 0
