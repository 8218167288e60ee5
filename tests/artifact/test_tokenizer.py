import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer

from artifact.predict.tokens import TextEncoder, TextLimits
from artifact.tokenizer import plain_tokenizer_json, read_config, read_limits, text_encoder
from errors import UserError
from models.embedded import minilm
from tests.artifact.conftest import edit_json

TEXTS = {
    "empty": "",
    "spaces": " \t\n ",
    "plain": "A warm and funny film.",
    "longer than the limit": "the film is what it is, " * 200,
    "one endless word": "a" * 5000,
    "accents": "naïve café, ﬁne; İstanbul ẞ",
    "combining marks": "cafe\u0301 a\u0308",
    "Chinese": "这部电影很好 film",
    "right to left": "\u202eהסרט נהדר\u202c فيلم رائع",
    "emoji": "👩‍👩‍👧 🙂🏽 ❤️",
    "control characters": "a\x00b\x07c\x7f\u200bd\ufeffe\ufffdf",
    "names of special tokens": "[MASK] is [SEP] not [CLS] a [PAD] text[UNK]",
    "nearly special tokens": "[mask] [ SEP ] ##film </s> <s>",
}


@pytest.fixture(params=["tiny", "minilm"])
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint if request.param == "tiny" else minilm()


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The configuration and tokenizer of a checkpoint, which a test may change."""
    for path in checkpoint.glob("*.json"):
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def ours(folder: Path, texts: list[str]) -> list[dict[str, list[int]]]:
    return text_encoder(folder, read_limits(folder)).encode(texts)


def theirs(folder: Path, texts: list[str], **options: Any) -> Any:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts, truncation=True, **options)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_ids_are_those_of_transformers(checkpoint: Path, text: str) -> None:
    expected = theirs(checkpoint, [text])
    (found,) = ours(checkpoint, [text])
    assert {name: [values] for name, values in found.items()} == dict(expected)


def test_the_real_tokenizer_pads_and_cuts_by_itself_unless_it_is_switched_off() -> None:
    baked = json.loads((minilm() / "tokenizer.json").read_bytes())
    assert baked["padding"]["strategy"] == {"Fixed": 128}
    assert baked["truncation"]["max_length"] == 128
    plain = json.loads(plain_tokenizer_json(minilm()))
    assert plain["padding"] is plain["truncation"] is None
    raw = (minilm() / "tokenizer.json").read_text(encoding="utf-8")
    encoder = TextEncoder(raw, TextLimits(max_length_tokens=512, pad_id=0, pad_type_id=0, pad_left=False))
    assert len(encoder.encode(["film"])[0]["input_ids"]) == 3
    short, long = ours(minilm(), ["film", "film " * 1000])
    assert len(short["input_ids"]) == 3
    assert len(long["input_ids"]) == 512


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("truncation_side", ["left", "right"])
def test_sides_are_those_of_the_tokenizer(copy: Path, padding_side: str, truncation_side: str) -> None:
    edit_json(copy / "tokenizer_config.json", padding_side=padding_side, truncation_side=truncation_side)
    texts = ["the best film of the year " * 100 + "not bad at all", "a film", ""]
    expected = theirs(copy, texts, padding=True, return_tensors="np")
    encoder = text_encoder(copy, read_limits(copy))
    found = encoder.pad(encoder.encode(texts), list(expected))
    assert len(expected) == 3
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_limit_is_the_lesser_of_tokenizer_and_model(checkpoint: Path) -> None:
    tokenizer, config = AutoTokenizer.from_pretrained(checkpoint), AutoConfig.from_pretrained(checkpoint)
    expected = min(tokenizer.model_max_length, config.max_position_embeddings)
    assert read_limits(checkpoint).max_length_tokens == expected


@pytest.mark.parametrize(
    ("tokenizer_says", "model_says", "limit"),
    [(10, 64, 10), (50, 40, 40), (1e30, 40, 40), (None, 30, 30), (20, None, 20)],
)
def test_a_length_that_says_nothing_is_left_out(
    copy: Path, tokenizer_says: float | None, model_says: int | None, limit: int
) -> None:
    edit_json(copy / "tokenizer_config.json", model_max_length=tokenizer_says)
    edit_json(copy / "config.json", max_position_embeddings=model_says)
    assert read_limits(copy).max_length_tokens == limit
    assert len(ours(copy, ["film " * 500])[0]["input_ids"]) == limit


def test_no_length_at_all_is_told(copy: Path) -> None:
    edit_json(copy / "tokenizer_config.json", model_max_length=1e30)
    edit_json(copy / "config.json", max_position_embeddings=None)
    with pytest.raises(UserError, match="does not say how long a text may be"):
        read_limits(copy)


def test_padding_is_the_models_own(copy: Path) -> None:
    edit_json(copy / "config.json", pad_token_id=5)
    assert read_limits(copy).pad_id == 5
    edit_json(copy / "config.json", pad_token_id=None)
    assert read_limits(copy).pad_id == 0


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{copy} has no {name}") as caught:
        read_limits(copy)
    assert "save" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b'{"version": ', b"\xff", b"[1]"])
def test_a_damaged_file_is_named(copy: Path, content: bytes) -> None:
    for name in ("config.json", "tokenizer.json"):
        (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json (cannot be read|does not hold)"):
        read_config(copy, "config.json")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        plain_tokenizer_json(copy)
