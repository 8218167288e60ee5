"""A model that hears learns what is said in recordings, and is judged as transformers' own loss judges it."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from artifact.task import Task
from errors import UserError
from models.lesson import learn
from models.training import Device, FinetuneConfig, Lesson, TrainingPrecision, TrainingRecord
from tests.conftest import SENTENCES, spoken, wav

CONFIG = FinetuneConfig(
    epochs=6,
    batch_size=8,
    learning_rate=3e-3,
    held_out=8,
    language="en",
    precision=TrainingPrecision.FP32,
    device=Device.CPU,
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each tone at twelve volumes, with a sentence that the base model writes of another one; none of them begins with
    what it may not begin with."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = []
    for number in range(len(SENTENCES)):
        for step in range(12):
            (folder / f"{number}-{step}.wav").write_bytes(wav(spoken(number) * np.float32(1 - step / 24)))
            rows.append((f"{number}-{step}.wav", SENTENCES[(2, 3, 1, 2)[number]]))
    with (folder / "said.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("audio", "text"), *rows])
    return folder / "said.csv"


def learn_from(base: Path, data: Path, out: Path, **changes: Any) -> TrainingRecord:
    config = msgspec.structs.replace(CONFIG, **changes)
    return learn(Lesson(base_model=str(base), data=str(data), config=config), out)[0]


def loss_of(folder: Path, path: str, text: str, told: list[int]) -> tuple[float, int]:
    """The sum over what is guessed by transformers' own loss, and the tokens of it."""
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    labels = torch.tensor([[-100] * (len(told) - 1) + said])
    with torch.inference_mode():
        inputs = torch.tensor([[*told, *said[:-1]]])
        loss = model(input_features=features(folder, path), decoder_input_ids=inputs, labels=labels).loss
    return float(loss) * len(said), len(said)


def features(folder: Path, path: str) -> torch.Tensor:
    samples = np.frombuffer(Path(path).read_bytes()[44:], "<i2") / np.float32(2**15)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    found: torch.Tensor = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
    return found


def test_what_is_said_is_learnt(learnt_whisper: Path, recordings: Path, tmp_path: Path) -> None:
    record = learn_from(learnt_whisper, recordings, tmp_path / "run")
    assert (record.data.task, record.metric) == (Task.SPEECH2TEXT_GENERATION, "perplexity")
    assert record.data.columns == {"text": "audio", "label": "text"}
    assert record.data.lengths is not None  # of what is written
    assert (sum(record.data.lengths.counts.values()), record.data.lengths.truncated_fraction) == (40, 0)
    assert record.before is not None
    assert record.before.low > 1.5 > 1.2 > record.value.high  # the rest of a sentence follows from its first words
    checkpoint = tmp_path / "run" / "checkpoint"
    tokenizer, told = AutoTokenizer.from_pretrained(checkpoint), told_by(checkpoint)
    with (tmp_path / "run" / "data" / "evaluation.csv").open() as file:
        held_out = list(csv.DictReader(file))
    assert len(held_out) == 8
    for folder, value in ((learnt_whisper, record.before.value), (checkpoint, record.value.value)):
        found = [loss_of(folder, row["audio"], row["transcript"], told) for row in held_out]
        total, count = np.sum(found, axis=0)
        assert value == pytest.approx(np.exp(total / count), rel=1e-3)  # features are made here by code of our own
    model = WhisperForConditionalGeneration.from_pretrained(checkpoint)
    assert model.generation_config.language == "en"  # so that export need not be told
    for row in held_out:
        (ids,) = model.generate(features(checkpoint, row["audio"]), do_sample=False, max_new_tokens=20)
        assert tokenizer.decode(ids, skip_special_tokens=True) == row["transcript"]


def told_by(folder: Path) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    ids: list[int] = tokenizer.convert_tokens_to_ids(names)
    return ids


def first_loss(run: Path) -> float:
    return float((run / "losses.csv").read_text().splitlines()[1].split(",")[1])


@pytest.mark.parametrize(("most", "cut"), [(64, 0.0), (11, 1.0)])
def test_a_step_learns_what_is_said_and_nothing_that_is_told(
    learnt_whisper: Path, recordings: Path, tmp_path: Path, most: int, cut: float
) -> None:
    """Of a transcript that was cut off no end is learnt."""
    config = {"epochs": 1, "batch_size": 40, "learning_rate": 0.0, "max_length_tokens": most}
    record = learn_from(learnt_whisper, recordings, tmp_path / "run", **config)
    assert record.data.lengths is not None
    assert record.data.lengths.truncated_fraction == cut
    told, tokenizer = told_by(learnt_whisper), AutoTokenizer.from_pretrained(learnt_whisper)
    model = WhisperForConditionalGeneration.from_pretrained(learnt_whisper)
    with (tmp_path / "run" / "data" / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = tokenizer([row["transcript"] for row in rows], add_special_tokens=False)["input_ids"]
    full = [[*told, *ids, tokenizer.eos_token_id][:most] for ids in said]
    labels = torch.full((len(full), max(map(len, full)) - 1), -100)
    inputs = torch.full_like(labels, tokenizer.pad_token_id)
    for number, ids in enumerate(full):
        inputs[number, : len(ids) - 1] = torch.tensor(ids[:-1])
        labels[number, len(told) - 1 : len(ids) - 1] = torch.tensor(ids[len(told) :])
    heard = torch.cat([features(learnt_whisper, row["audio"]) for row in rows])
    with torch.inference_mode():
        loss = float(model(input_features=heard, decoder_input_ids=inputs, labels=labels).loss)
    assert first_loss(tmp_path / "run") == pytest.approx(loss, rel=1e-3)
    assert len(set(map(len, full))) > 1 or cut


def test_it_goes_on_where_it_was_interrupted(learnt_whisper: Path, recordings: Path, tmp_path: Path) -> None:
    whole = learn_from(learnt_whisper, recordings, tmp_path / "whole", epochs=2)
    lesson = Lesson(
        base_model=str(learnt_whisper), data=str(recordings), config=msgspec.structs.replace(CONFIG, epochs=2)
    )

    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "fine-tune" and done == whole.steps - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson, tmp_path / "run", progress=interrupt)
    again, _ = learn(lesson, tmp_path / "run")
    assert again.checkpoint_sha256 == whole.checkpoint_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": None}, "writes many languages, and nothing says which"),
        ({"language": "tlhIngan"}, "does not know the language 'tlhIngan'"),
        ({"layers": 1}, "--layers keeps the first of one stack"),
        ({"max_length_tokens": 4}, "--max-length 4 leaves no room behind the 4 tokens"),
    ],
)
def test_what_cannot_be_learnt_is_said(
    learnt_whisper: Path, recordings: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        learn_from(learnt_whisper, recordings, tmp_path / "run", **changes)


def test_a_recording_that_cannot_be_heard_is_named_before_anything_is_learnt(
    learnt_whisper: Path, recordings: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(recordings.parent, tmp_path / "recordings"))
    (folder / "3-11.wav").write_bytes(wav(spoken(3), rate=8_000))
    steps: list[str] = []
    lesson = Lesson(base_model=str(learnt_whisper), data=str(folder / "said.csv"), config=CONFIG)
    with pytest.raises(
        UserError, match=r"said\.csv, row 49: .*3-11\.wav has 8,000 samples a second, the model takes 16,000"
    ):
        learn(lesson, tmp_path / "run", progress=lambda stage, *more: steps.append(stage))
    assert "fine-tune" not in steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "does not say how recordings become features"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "hears other features than Whisper's"),
        ({"n_fft": 512}, "does not say how recordings become features: frames are not of 400 samples"),
    ],
)
def test_a_checkpoint_that_hears_otherwise_is_refused(
    learnt_whisper: Path, recordings: Path, tmp_path: Path, change: dict[str, Any] | None, message: str
) -> None:
    base = Path(shutil.copytree(learnt_whisper, tmp_path / "base"))
    settings = base / "preprocessor_config.json"
    if change is None:
        settings.unlink()
    else:
        settings.write_text(json.dumps({**json.loads(settings.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        learn_from(base, recordings, tmp_path / "run")


def test_other_models_are_given_no_language(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "a film", "label": "good"}) + "\n")
    with pytest.raises(UserError, match="--language is for models that hear recordings"):
        learn_from(tiny_checkpoint, tmp_path / "data.jsonl", tmp_path / "run")
