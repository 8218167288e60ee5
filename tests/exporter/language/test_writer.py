"""Texts continued by an exported decoder, beside `generate`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from artifact.generate.decoder import Decoder, Decoding, Logits
from artifact.generate.sampling import Sampling
from artifact.generate.writer import Wanted, Writer
from artifact.precision import Precision
from errors import UserError
from exporter.language.export import export_language
from exporter.request import Request, Source
from models.rows import Columns
from tests.exporter.conftest import session

PROMPTS = ("two hours", "what", "the year is about")


@pytest.fixture(scope="module")
def writer(learnt_llama: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    out = tmp_path_factory.mktemp("written") / "run"
    (exported,) = export_language(Request(learnt_llama, out, (Precision.FP32,), data=Source(sentences, Columns())))
    tokenizer = Tokenizer.from_file(str(learnt_llama / "tokenizer.json"))
    end = tokenizer.token_to_id("[SEP]")
    assert end is not None
    return Writer(Decoder(session(exported.path), 96), tokenizer, [end])


def prompt(writer: Writer, text: str) -> list[int]:
    """Without the token that ends texts, which this tokenizer adds."""
    return writer.tokens(text)[:-1]


def test_a_batch_is_written_as_generate_writes_each(writer: Writer, learnt_llama: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(learnt_llama), AutoTokenizer.from_pretrained(learnt_llama)
    written = writer.write([prompt(writer, text) for text in PROMPTS], Wanted(most=20))
    for text, found in zip(PROMPTS, written, strict=True):
        given = tokenizer(text, return_tensors="pt")["input_ids"][:, :-1]
        said = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=20, do_sample=False)
        expected = said[0, given.shape[1] :].tolist()
        assert list(found.tokens) == expected
        assert found.ending == ("end" if expected[-1] == tokenizer.sep_token_id else "length")
        assert found.text == tokenizer.decode(found.tokens, skip_special_tokens=True)
    assert "end" in {item.ending for item in written}


def test_a_stream_is_the_same_text(writer: Writer) -> None:
    for sampling in (Sampling(), Sampling(temperature=1.5, top_k=20, seed=7)):
        wanted = Wanted(most=12, sampling=sampling)
        (whole,) = writer.write([prompt(writer, PROMPTS[0])], wanted)
        pieces = list(writer.stream(prompt(writer, PROMPTS[0]), wanted))
        assert "".join(pieces) == whole.text
        assert len(pieces) > 1


def test_a_stop_ends_a_text(writer: Writer) -> None:
    (whole,) = writer.write([prompt(writer, PROMPTS[0])], Wanted(most=12))
    stop = whole.text.split()[3]
    (found,) = writer.write([prompt(writer, PROMPTS[0])], Wanted(most=12, stop=(stop,)))
    assert found.ending == "stop"
    assert found.text == whole.text[: whole.text.index(stop)]


def test_the_context_ends_a_text_and_a_prompt_that_fills_it_is_refused(writer: Writer) -> None:
    (found,) = writer.write([[7] * 90], Wanted(most=500, sampling=Sampling(temperature=3.0)))
    assert len(found.tokens) <= 6
    with pytest.raises(UserError, match="a prompt has 96 tokens, and this model's context is 96"):
        writer.write([[7] * 96], Wanted())
    with pytest.raises(UserError, match="a prompt is empty"):
        list(writer.stream([], Wanted()))
    with pytest.raises(UserError, match="--max-new-tokens is 0"):
        writer.write([[7]], Wanted(most=0))


def test_what_was_written_until_an_interruption_is_kept(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    step, times = Decoding.step, iter(range(99))

    def interrupted(decoding: Decoding, tokens: NDArray[np.int64]) -> Logits:
        if next(times) == 3:
            raise KeyboardInterrupt  # as Python makes of Ctrl-C, unless whoever started it ignores that
        return step(decoding, tokens)

    (whole,) = writer.write([prompt(writer, PROMPTS[0])], Wanted(most=9))
    monkeypatch.setattr(Decoding, "step", interrupted)
    (found,) = writer.write([prompt(writer, PROMPTS[0])], Wanted(most=9))
    assert (found.ending, found.tokens) == ("interrupted", whole.tokens[:4])
    assert whole.text.startswith(found.text)
