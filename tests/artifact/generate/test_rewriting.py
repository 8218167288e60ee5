"""A packed encoder-decoder, used as a stranger would use it, beside transformers."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, BartForConditionalGeneration

from artifact.generate.generator import Generator
from artifact.generate.writer import Wanted
from artifact.pack_language import pack_language
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import UserError
from exporter.language.export import export_language
from exporter.request import Request
from tests.artifact.conftest import edit_json, reseal, run_predict
from tests.artifact.environments import Environments, environments
from tests.conftest import SENTENCES, Steelyard

__all__ = ["environments"]

MOST = 12
NO_MORE: dict[str, Any] = {"never_first_ids": [], "sound": None}


@pytest.fixture(scope="module")
def packed_t5(rewriting_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 encoder-decoder as an artifact; copy it to write into it."""
    out = tmp_path_factory.mktemp("packed") / "artifact"
    pack_language(RunFolder(rewriting_run), Precision.FP32, out, card=None, card_reason="not measured")
    return out


@pytest.fixture
def copy(packed_t5: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed_t5, tmp_path / "artifact"))


@pytest.fixture(scope="module")
def translating(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random BART that must begin with one token and may never say some others, and its artifact."""
    folder = tmp_path_factory.mktemp("translating")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.save_pretrained(folder / "checkpoint")
    torch.manual_seed(0)
    parts = ("encoder", "decoder")
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        max_position_embeddings=40,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        decoder_start_token_id=tokenizer.sep_token_id,
        forced_eos_token_id=None,
        **dict.fromkeys([f"{part}_layers" for part in parts], 2),
        **dict.fromkeys([f"{part}_attention_heads" for part in parts], 2),
        **dict.fromkeys([f"{part}_ffn_dim" for part in parts], 64),
    )
    model = BartForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    likeliest = model.generate(torch.tensor([[5, 6, 7]]), do_sample=False, num_beams=1, max_new_tokens=4)[0, 1:]
    model.generation_config.forced_bos_token_id = 40
    model.generation_config.bad_words_ids = [[int(token)] for token in set(likeliest.tolist())]
    model.save_pretrained(folder / "checkpoint")
    request = Request(folder / "checkpoint", folder / "run", (Precision.FP32,), is_language=True)
    (exported,) = export_language(request)
    assert exported.variant.passed, exported.variant.reasons
    out = folder / "artifact"
    pack_language(RunFolder(folder / "run"), Precision.FP32, out, card=None, card_reason="not measured")
    return folder / "checkpoint", out


def said(checkpoint: Path, text: str, most: int = MOST) -> str:
    """What transformers' own greedy `generate` writes of a text."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    given = tokenizer(text, return_tensors="pt")
    inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
    found = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=most)
    return str(tokenizer.decode(found[0], skip_special_tokens=True))


def test_the_command_writes_what_pytorch_writes(packed_t5: Path, learnt_t5: Path) -> None:
    for text in SENTENCES:
        done = run_predict(packed_t5, text, "--max-new-tokens", str(MOST))
        assert done.stdout.decode() == f"{said(learnt_t5, text)}\n"
    lines = run_predict(packed_t5, "--json", stdin="\n".join(SENTENCES).encode()).stdout.splitlines()
    assert [json.loads(line)["written"] for line in lines] == list(SENTENCES)  # it learnt to say them again


def test_what_must_and_what_may_not_be_said(translating: tuple[Path, Path]) -> None:
    checkpoint, artifact = translating
    generator = Generator.open(artifact)
    manifest = generator.manifest
    assert manifest.rewriting is not None
    assert manifest.rewriting.start_ids == (3, 40)
    assert manifest.rewriting.most_read_tokens == 40
    assert manifest.never_ids
    texts = [*SENTENCES, SENTENCES[0].split()[0]]
    together = generator.complete(texts, Wanted(MOST))
    for text, written in zip(texts, together, strict=True):
        assert not {*written.tokens} & {*manifest.never_ids}
        start = AutoTokenizer.from_pretrained(checkpoint).decode([40])
        theirs = said(checkpoint, text, MOST + 1)  # it counts the forced token
        assert f"{start} {written.text}".split() == theirs.split()
        assert "".join(generator.stream(text, Wanted(MOST))) == written.text


def test_it_needs_nothing_but_its_requirements(packed_t5: Path, environments: Environments) -> None:
    python = environments.python(packed_t5 / "requirements.txt")
    for words, wanted in ((("--selftest",), "selftest passed"), ((SENTENCES[0],), SENTENCES[0])):
        done = subprocess.run(
            [python, "-I", packed_t5 / "predict.py", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(wanted)


def test_verify_confirms_it_and_finds_a_flipped_bit(copy: Path, steelyard: Steelyard) -> None:
    done = steelyard("verify", copy)
    assert (done.returncode, "golden examples agree" in done.stdout) == (0, True), done.stderr
    for name in ("onnx/encoder.onnx", "onnx/decoder.onnx", "onnx/weights.onnx_data"):
        path = copy / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        done = steelyard("verify", copy)
        assert (done.returncode, "was changed or damaged" in done.stderr) == (1, True)
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_weights_of_another_model_are_found_when_the_hashes_fit(copy: Path) -> None:
    path = copy / "onnx" / "weights.onnx_data"
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = data[len(data) // 2 : 2 * (len(data) // 2)]
    path.write_bytes(data)
    reseal(copy)
    (problem,) = Generator.open(copy).selftest()
    assert "a logit is off by" in problem


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rewriting": None}, "says how it rewrites, or does not"),
        ({"task": "text-generation"}, "says how it rewrites, or does not"),
        (
            {"rewriting": {"encoder_file": "../e.onnx", "most_read_tokens": None, "start_ids": [1], **NO_MORE}},
            "encoder_file is",
        ),
        (
            {"rewriting": {"encoder_file": "onnx/e.onnx", "most_read_tokens": None, "start_ids": [1], **NO_MORE}},
            "no sha256 of",
        ),
        (
            {"rewriting": {"encoder_file": "onnx/encoder.onnx", "most_read_tokens": 9, "start_ids": [], **NO_MORE}},
            "how a text",
        ),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(
    copy: Path, steelyard: Steelyard, changes: dict[str, Any], why: str
) -> None:
    edit_json(copy / "steelyard.json", **changes)
    done = steelyard("predict", copy, "two hours")
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr


def test_what_cannot_be_is_said(translating: tuple[Path, Path], steelyard: Steelyard) -> None:
    generator = Generator.open(translating[1])
    with pytest.raises(UserError, match="and this model reads at most 40"):
        generator.complete([" ".join(["two"] * 60)])
    done = steelyard("compare", translating[1], "--data", "none.csv", "--out", "x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    card = (translating[1] / "README.md").read_text()
    assert "reads at most 40" in card
    assert "genai" not in card
    assert not (translating[1] / "genai_config.json").exists()
