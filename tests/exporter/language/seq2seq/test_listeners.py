"""Models that hear, exported by the command: how they begin, what is judged, and what is refused."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

from artifact.language import LanguageVariant
from artifact.precision import Precision
from artifact.recordings import Recordings
from errors import UserError
from exporter.language.export import export_language
from exporter.language.graph_files import LISTENING, graph_files_of
from exporter.language.job import family_of
from exporter.language.seq2seq.listeners import listeners
from exporter.request import Request, Source
from models.checkpoint import load_model, load_tokenizer
from models.rows import Columns
from models.starts import start_ids
from tests.artifact.conftest import edit_json
from tests.conftest import SENTENCES, within


def variant(run: Path, precision: Precision) -> LanguageVariant:
    return msgspec.json.decode((run / "variants" / precision / "variant.json").read_bytes(), type=LanguageVariant)


def test_fp32_is_pytorch(hearing_run: Path, learnt_whisper: Path, heard: Path) -> None:
    found = variant(hearing_run, Precision.FP32)
    assert found.passed, found.reasons
    assert found.task == "speech2text-generation"
    assert found.reading is not None
    assert found.reading.sound is not None
    assert (found.reading.sound.features, found.reading.sound.frames) == ("slaney-mel", 200)
    assert found.prediction.error_fraction < 1e-5
    assert found.golden_error_fraction < 1e-5
    assert (found.continuation.equal, found.continuation.prompts) == (len(SENTENCES), len(SENTENCES))
    model, tokenizer = load_model(learnt_whisper), AutoTokenizer.from_pretrained(learnt_whisper)
    features = Recordings(tuple(str(heard.parent / f"{n}.wav") for n in range(len(SENTENCES))), found.reading.sound)
    total, tokens = 0.0, 0
    for number, text in enumerate(SENTENCES):
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        told = torch.tensor([[*found.reading.start_ids, *ids]])
        with torch.inference_mode():
            logits = model(torch.from_numpy(features[number][None]), decoder_input_ids=told[:, :-1]).logits[0]
        chances = logits[len(found.reading.start_ids) - 1 :].log_softmax(dim=-1)
        total -= float(chances[range(len(ids)), ids].sum())
        tokens += len(ids)
    assert (found.prediction.tokens, found.prediction.inputs) == (tokens, heard.name)
    assert found.prediction.perplexity == pytest.approx(np.exp(total / tokens), rel=1e-4)


@pytest.mark.parametrize(("precision", "bits"), [(Precision.INT8_DYNAMIC, 8), (Precision.INT4, 4)])
def test_rounded_weights_predict_nearly_the_same(hearing_run: Path, precision: Precision, bits: int) -> None:
    found = variant(hearing_run, precision)
    assert (found.weight_bits, found.operators["MatMulNBits"]) == (bits, 2 * 4 + 1 + 2 * (2 + 2 + 2) + 1)
    assert 1e-8 < found.prediction.divergence_nats.value < (1e-3 if bits == 8 else 5e-2)


def begun(model: WhisperForConditionalGeneration, language: str | None) -> list[int]:
    """What `generate` itself begins with: its decoder's first input."""
    seen: list[list[int]] = []
    hook = model.model.decoder.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"][0].tolist()), with_kwargs=True
    )
    said = {} if language is None else {"language": language}
    features = torch.zeros(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    model.generate(features, max_new_tokens=1, return_timestamps=False, **said)
    hook.remove()
    return seen[-1]


@pytest.mark.parametrize(
    ("settings", "language"),
    [
        ({}, "en"),
        ({}, "German"),
        ({}, "<|de|>"),
        ({"language": "german"}, None),
        ({"language": "german", "task": "translate"}, "en"),
        ({"forced_decoder_ids": [[1, 117], [2, 118], [3, 120]]}, None),
        ({"forced_decoder_ids": [[1, None], [2, 118]]}, "en"),
        ({"lang_to_id": None, "task_to_id": None, "is_multilingual": False}, None),
        ({"lang_to_id": None, "task_to_id": None, "no_timestamps_token_id": None}, None),
    ],
)
def test_a_text_begins_as_generate_begins_it(
    learnt_whisper: Path, settings: dict[str, object], language: str | None
) -> None:
    model = load_model(learnt_whisper)
    for name, value in settings.items():
        if value is None:
            delattr(model.generation_config, name)
        else:
            setattr(model.generation_config, name, value)
    assert list(start_ids(model, language)) == begun(model, language)


def test_without_a_column_pytorch_says_what_is_written(learnt_whisper: Path, heard: Path, tmp_path: Path) -> None:
    (tmp_path / "0.wav").write_bytes((heard.parent / "1.wav").read_bytes())
    (tmp_path / "bare.csv").write_text("path\n0.wav\n")
    source = Source(tmp_path / "bare.csv", Columns())
    request = Request(learnt_whisper, tmp_path / "run", (Precision.FP32,), data=source, language="de")
    (exported,) = export_language(request)
    assert exported.variant.passed, exported.variant.reasons
    assert exported.variant.prediction.inputs == "bare.csv, and what PyTorch writes of it"
    model, tokenizer = load_model(learnt_whisper), load_tokenizer(learnt_whisper)
    (row,) = listeners(learnt_whisper, "de").passages(source, model, tokenizer, 64).rows
    assert tokenizer.decode(row, skip_special_tokens=True) == SENTENCES[2]
    assert row[-1] == tokenizer.eos_token_id
    assert not export_language(request)[0].made
    sha256 = source.rows(LISTENING.task).sha256
    (tmp_path / "0.wav").write_bytes((heard.parent / "2.wav").read_bytes())
    assert source.rows(LISTENING.task).sha256 != sha256  # of what the recordings hold


def test_what_cannot_be_exported_is_said(learnt_whisper: Path, learnt_t5: Path, tmp_path: Path) -> None:
    done = within("export", learnt_whisper, "--out", tmp_path / "run")
    assert (done.returncode, "many languages, and nothing says which" in done.stderr) == (2, True), done.stderr
    assert "--language en" in done.stderr
    with pytest.raises(UserError, match="does not know the language 'fr'"):
        start_ids(load_model(learnt_whisper), "fr")
    with pytest.raises(UserError, match="--language is for models that hear"):
        export_language(Request(learnt_t5, tmp_path / "run", (Precision.FP32,), language="en"))
    copy = Path(shutil.copytree(learnt_whisper, tmp_path / "checkpoint"))
    edit_json(copy / "preprocessor_config.json", dither=0.1)
    with pytest.raises(UserError, match=r"does not say how recordings become features: frames are not"):
        family_of(LISTENING, copy)
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json"):
        family_of(LISTENING, copy)
    WhisperProcessor(
        WhisperFeatureExtractor(feature_size=16, chunk_length=2), load_tokenizer(learnt_whisper)
    ).save_pretrained(tmp_path / "processor")
    shutil.copyfile(tmp_path / "processor" / "processor_config.json", copy / "processor_config.json")
    assert family_of(graph_files_of(copy), copy).files.task == "speech2text-generation"
    (tmp_path / "gone.csv").write_text("audio,text\nnowhere.wav,what\n")
    source = Source(tmp_path / "gone.csv", Columns())
    with pytest.raises(UserError, match="there is no recording"):
        export_language(Request(learnt_whisper, tmp_path / "run", (Precision.FP32,), data=source))
