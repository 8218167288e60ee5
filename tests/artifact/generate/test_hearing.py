"""A packed model that hears, used as a stranger would use it, beside transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from artifact.generate.generator import Generator
from artifact.generate.writer import Wanted
from artifact.pack_language import pack_language
from artifact.precision import Precision
from artifact.predict.sounds import SoundItem
from artifact.run_folder import RunFolder
from errors import UserError
from tests.artifact.conftest import edit_json, reseal, run_predict
from tests.conftest import SENTENCES, Steelyard, spoken, wav

MOST = 16


@pytest.fixture(scope="module")
def packed(hearing_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 model as an artifact; copy it to write into it."""
    out = tmp_path_factory.mktemp("packed") / "artifact"
    pack_language(RunFolder(hearing_run), Precision.FP32, out, card=None, card_reason="not measured")
    return out


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "artifact"))


def said(checkpoint: Path, data: bytes, language: str = "en") -> str:
    """What Whisper's own `generate` of transformers writes of a recording of 16 bits."""
    model, tokenizer = (
        WhisperForConditionalGeneration.from_pretrained(checkpoint),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    samples = np.frombuffer(data[44:], "<i2") / np.float32(2**15)
    features = WhisperFeatureExtractor.from_pretrained(checkpoint)(samples, sampling_rate=16_000, return_tensors="pt")
    found = model.generate(
        features["input_features"], language=language, return_timestamps=False, do_sample=False, max_new_tokens=MOST
    )
    return str(tokenizer.decode(found[0], skip_special_tokens=True))


def test_the_command_writes_what_transformers_writes(packed: Path, learnt_whisper: Path, heard: Path) -> None:
    files = [heard.parent / f"{number}.wav" for number in range(len(SENTENCES))]
    wanted = [said(learnt_whisper, file.read_bytes()) for file in files]
    assert wanted[1:] == list(SENTENCES[1:])  # it learnt them
    assert not wanted[0].startswith(SENTENCES[0].split()[0])  # which is never the first word
    done = run_predict(packed, str(files[0]), "--max-new-tokens", str(MOST))
    assert done.stdout.decode() == f"{wanted[0]}\n", done.stderr
    lines = run_predict(packed, "--json", "--max-new-tokens", str(MOST), *map(str, files)).stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [(item["file"], item["written"]) for item in told] == list(zip(map(str, files), wanted, strict=True))


def test_a_whole_file_is_written_down(packed: Path, learnt_whisper: Path, heard: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run_predict(packed, "--data", str(heard), "--out", str(out), "--keep", "transcript")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert [item["transcript"] for item in told] == list(SENTENCES)
    assert [item["written"] for item in told[1:]] == list(SENTENCES[1:])


def test_samples_and_bytes_are_heard_alone_and_together(packed: Path, learnt_whisper: Path) -> None:
    generator = Generator.open(packed)
    rewriting = generator.manifest.rewriting
    assert rewriting is not None
    told = AutoTokenizer.from_pretrained(learnt_whisper).convert_ids_to_tokens(list(rewriting.start_ids))
    assert told == ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    random = np.random.default_rng(3).standard_normal(30_000).astype(np.float32)
    silence = np.zeros(100, dtype=np.float32)
    recordings: list[SoundItem] = [spoken(2), wav(spoken(1)), wav(0.1 * random), wav(silence)]
    together = generator.complete(recordings, Wanted(MOST))
    assert [item.text for item in together[:2]] == [SENTENCES[2], SENTENCES[1]]
    for item, written in zip(recordings[1:], together[1:], strict=True):
        assert isinstance(item, bytes)
        assert written.text == said(learnt_whisper, item)
        assert "".join(generator.stream(item, Wanted(MOST))) == written.text


def test_verify_confirms_it(packed: Path, steelyard: Steelyard) -> None:
    assert b"selftest passed" in run_predict(packed, "--selftest").stdout
    done = steelyard("verify", packed)
    assert (done.returncode, "golden examples agree" in done.stdout) == (0, True), done.stderr
    card = (packed / "README.md").read_text()
    assert "pipeline_tag: automatic-speech-recognition" in card
    assert "last at most 2 s" in card
    assert 'generator.complete(["recording.wav"])' in card


def test_other_features_and_weights_are_found_when_the_hashes_fit(copy: Path) -> None:
    golden = json.loads((copy / "golden.json").read_text())
    golden["examples"][0]["features"]["values"][0] += 0.01
    edit_json(copy / "golden.json", **golden)
    reseal(copy)
    assert Generator.open(copy).selftest() == ["the features of a recording differ from the reference's"]
    path = copy / "onnx" / "weights.onnx_data"
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = data[len(data) // 2 : 2 * (len(data) // 2)]
    path.write_bytes(data)
    golden["examples"][0]["features"]["values"][0] -= 0.01
    edit_json(copy / "golden.json", **golden)
    reseal(copy)
    (problem,) = Generator.open(copy).selftest()
    assert "a logit is off by" in problem


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sound": None}, "says how recordings are read, or does not"),
        ({"sound": {"features": "mfcc", "rate_hz": 16_000, "normalize": False}}, "not one of waveform, mel"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(
    copy: Path, steelyard: Steelyard, change: dict[str, Any], why: str
) -> None:
    manifest = json.loads((copy / "steelyard.json").read_text())
    edit_json(copy / "steelyard.json", rewriting=manifest["rewriting"] | change)
    done = steelyard("predict", copy, "a.wav")
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr


def test_what_is_not_heard_is_said(packed: Path, tmp_path: Path, steelyard: Steelyard) -> None:
    (tmp_path / "long.wav").write_bytes(wav(np.zeros(32_001, dtype=np.float32)))
    (tmp_path / "other.wav").write_bytes(wav(spoken(0), rate=8_000))
    for name, why in (
        ("long.wav", "long.wav lasts 2.0 s, and the model hears 2 s at once"),
        ("other.wav", "other.wav has 8,000 samples a second"),
        ("none.wav", "none.wav cannot be read"),
    ):
        done = steelyard("predict", packed, tmp_path / name)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    with pytest.raises(UserError, match="chat"):
        Generator.open(packed).chat([{"role": "user", "content": "what"}])
