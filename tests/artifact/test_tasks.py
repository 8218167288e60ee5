"""One artifact for each kind of task, its answers beside those of transformers and PyTorch."""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax

from artifact.pack import pack
from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from artifact.predict.answers import Embedding, Filled, Prediction, Span, Tagged
from artifact.predict.predictor import Predictor
from artifact.run_folder import RunFolder
from errors import UserError
from exporter.export import export
from exporter.request import Request, Source
from models.rows import Columns
from tests.artifact.conftest import edit_json
from tests.artifact.environments import BASE, Environments, environments
from tests.conftest import ROOT, wav
from tests.exporter.architectures import ARCHITECTURES, Architecture, write_checkpoint

__all__ = ["environments"]
pytestmark = pytest.mark.slow

TEXTS = ("a warm film", "Two hours, wasted!", "it was made in rome by ada", "", "so good " * 40)
FIND = """
import importlib.util, json
names = ("numpy", "onnxruntime", "tokenizers", "msgspec", "torch", "transformers", "onnx")
print(json.dumps([name for name in names if importlib.util.find_spec(name)]))
"""
PAIRS = tuple(zip(TEXTS, reversed(TEXTS), strict=True))
NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def architecture(name: str, **config: Any) -> Architecture:
    found = next(item for item in ARCHITECTURES if item.name == name)
    return replace(found, config={**found.config, **config})


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Writes a checkpoint, lets `prepare` add to it, exports and packs it."""

    def made(
        item: Architecture,
        prepare: Callable[[Path], object] = lambda folder: None,
        rows: tuple[Mapping[str, Any], ...] | None = None,
        pooling: Pooling | None = None,
    ) -> Path:
        folder = tmp_path_factory.mktemp("task")
        checkpoint = write_checkpoint(item, folder / "checkpoint")
        prepare(checkpoint)
        data = None
        if rows is not None:
            (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            data = Source(folder / "rows.jsonl", Columns())
        export(Request(checkpoint, folder / "run", (Precision.FP32,), data=data, pooling=pooling))
        pack(RunFolder(folder / "run"), Precision.FP32, folder / "artifact", card=None, card_reason="a test")
        return folder / "artifact"

    return made


def checkpoint_of(artifact: Path) -> Path:
    return artifact.parent / "checkpoint"


def pytorch(artifact: Path, item: Architecture, **inputs: Any) -> dict[str, NDArray[np.float32]]:
    """The model's outputs for one example, by the class of transformers."""
    import torch
    import transformers

    model = getattr(transformers, item.kind).from_pretrained(checkpoint_of(artifact)).eval()
    with torch.inference_mode():
        found = model(**{name: torch.as_tensor(np.asarray(value)) for name, value in inputs.items()})
    return {name: tensor[0].numpy() for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}


def tokenized(artifact: Path, *texts: Any, **options: Any) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of(artifact))
    return dict(tokenizer(*([text] for text in texts), truncation=True, return_tensors="np", **options))


@dataclass(frozen=True)
class Stranger:
    """Whoever received an artifact, in an environment of its `requirements.txt`."""

    environments: Environments

    def predicts(self, artifact: Path, *arguments: str | Path) -> list[Any]:
        """What `predict.py --json` answers."""
        python = self.environments.python(artifact / "requirements.txt")
        done = self._ran([python, "-I", artifact / "predict.py", "--json", *arguments])
        return [json.loads(line) for line in done.stdout.splitlines()]

    def proves(self, artifact: Path) -> None:
        """The artifact's own test in its own environment, and `steelyard verify` where no other engine is."""
        python = self.environments.python(artifact / "requirements.txt")
        assert "selftest passed" in self._ran([python, "-I", artifact / "predict.py", "--selftest"]).stdout
        python = self.environments.python(artifact / "requirements.txt", *BASE)
        done = self._ran([python, "-P", "-m", "cli", "verify", artifact, "--json"])
        told = json.loads(done.stdout)
        assert told["examples"] > 0
        assert told["own_predict_py"]

    def _ran(self, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def stranger(environments: Environments) -> Stranger:
    return Stranger(environments)


def test_the_environments_have_neither_torch_nor_transformers(make: Make, environments: Environments) -> None:
    requirements = make(architecture("BERT")) / "requirements.txt"
    for more in ((), BASE):
        found = subprocess.run(
            [environments.python(requirements, *more), "-I", "-c", FIND], capture_output=True, text=True, check=True
        )
        assert json.loads(found.stdout) == [
            "numpy",
            "onnxruntime",
            "tokenizers",
            *(["msgspec"] if more else []),
        ]


@pytest.mark.exhaustive
def test_pairs_are_classified(make: Make, stranger: Stranger) -> None:
    item = architecture("BERT")
    artifact = make(item, rows=tuple({"sentence1": one, "sentence2": two} for one, two in PAIRS if one and two))
    stranger.proves(artifact)
    predictor = Predictor.open(artifact)
    assert predictor.manifest.reads == "pair"
    for (one, two), answer in zip(PAIRS, predictor.predict(PAIRS), strict=True):
        expected = softmax(pytorch(artifact, item, **tokenized(artifact, one, two))["logits"])
        assert isinstance(answer, Prediction)
        np.testing.assert_allclose(list(answer.scores.values()), expected, atol=1e-3)
    (told,) = stranger.predicts(artifact, "a warm film", "Two hours, wasted!")
    assert (told["text"], told["pair"]) == ("a warm film", "Two hours, wasted!")
    with pytest.raises(UserError, match="two texts"):
        predictor.predict(["one text"])


def test_several_labels_may_apply(make: Make, stranger: Stranger) -> None:
    item = architecture("DistilBERT")
    artifact = make(item)
    stranger.proves(artifact)
    answers = Predictor.open(artifact).predict(TEXTS, threshold=0.4)
    sizes = set()
    for text, answer in zip(TEXTS, answers, strict=True):
        scores = expit(pytorch(artifact, item, **tokenized(artifact, text))["logits"])
        assert isinstance(answer, Prediction)
        np.testing.assert_allclose(list(answer.scores.values()), scores, atol=1e-3)
        assert answer.labels == tuple(f"LABEL_{n}" for n in range(4) if scores[n] >= 0.4)
        sizes.add(len(answer.labels))
    assert len(sizes) > 1
    top = Predictor.open(artifact).predict(TEXTS, top_k=2)
    assert all(isinstance(answer, Prediction) and len(answer.scores) == 2 for answer in top)


def test_a_number_is_told_as_it_is(make: Make, stranger: Stranger) -> None:
    item = architecture("RoBERTa", problem_type="regression")
    artifact = make(item)
    stranger.proves(artifact)
    for text, answer in zip(TEXTS, Predictor.open(artifact).predict(TEXTS), strict=True):
        assert isinstance(answer, Prediction)
        assert answer.score == pytest.approx(
            float(pytorch(artifact, item, **tokenized(artifact, text))["logits"][0]), abs=1e-3
        )


@pytest.fixture(scope="module")
def tagger(make: Make) -> Path:
    def name_labels(folder: Path) -> None:
        names = {str(number): name for number, name in enumerate(NAMES)}
        edit_json(folder / "config.json", id2label=names, label2id={name: int(at) for at, name in names.items()})

    return make(architecture("XLM-RoBERTa", num_labels=len(NAMES)), name_labels)


def test_entities_are_those_of_transformers(tagger: Path, stranger: Stranger) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    stranger.proves(tagger)
    folder = checkpoint_of(tagger)
    theirs = pipeline(
        "token-classification",
        model=AutoModelForTokenClassification.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        aggregation_strategy="first",
    )
    texts = [text for text in TEXTS[:4] if text]
    for text, answer in zip(texts, Predictor.open(tagger).predict(texts), strict=True):
        assert isinstance(answer, Tagged)
        expected = theirs(text)
        assert [(one.label, one.start, one.end) for one in answer.entities] == [
            (one["entity_group"], one["start"], one["end"]) for one in expected
        ]
        np.testing.assert_allclose(
            [one.score for one in answer.entities], [one["score"] for one in expected], atol=1e-3
        )
        assert all(one.text == text[one.start : one.end] for one in (*answer.entities, *answer.words))
        assert "".join(one.text for one in answer.words) == text.replace(" ", "")
    assert any(answer.entities for answer in Predictor.open(tagger).predict(texts) if isinstance(answer, Tagged))


def test_words_keep_their_places(tagger: Path) -> None:
    item = architecture("XLM-RoBERTa", num_labels=len(NAMES))
    words = ["it", "was", "made", "in", "rome"]
    (answer,) = Predictor.open(tagger).predict([words])
    assert isinstance(answer, Tagged)
    encoded = tokenized(tagger, words, is_split_into_words=True)
    logits = pytorch(tagger, item, **encoded)["logits"]
    firsts = np.cumsum([1, *map(len, words[:-1])])  # a token for each letter, behind [CLS]
    assert [one.label for one in answer.words] == [NAMES[best] for best in logits[firsts].argmax(axis=1)]
    assert [(one.start, one.end, one.text) for one in answer.words] == [
        (place, place + 1, word) for place, word in enumerate(words)
    ]
    assert not answer.truncated
    (cut,) = Predictor.open(tagger).predict([["word"] * 100])
    assert isinstance(cut, Tagged)
    assert cut.truncated


def test_answers_are_spans_of_their_context(make: Make, stranger: Stranger) -> None:
    item = architecture("BERT (answers)")
    artifact = make(item)
    stranger.proves(artifact)
    question, context = "who?", "ada wrote it in rome"
    (answer,) = Predictor.open(artifact).predict([(question, context)])
    assert isinstance(answer, Span)
    from transformers import AutoTokenizer

    encoding = AutoTokenizer.from_pretrained(checkpoint_of(artifact))(
        question, context, return_offsets_mapping=True, return_tensors="np"
    )
    offsets, parts = encoding.pop("offset_mapping")[0], encoding.sequence_ids(0)
    outputs = pytorch(artifact, item, **encoding)
    counted = [place for place, part in enumerate(parts) if part == 1 or place == 0]
    start = dict(zip(counted, softmax(outputs["start_logits"][counted].astype(float)), strict=True))
    end = dict(zip(counted, softmax(outputs["end_logits"][counted].astype(float)), strict=True))
    spans = {
        (first, last): start[first] * end[last]
        for first in counted[1:]
        for last in counted[1:]
        if first <= last < first + 30
    }
    (first, last), score = max(spans.items(), key=lambda item: item[1])
    assert (answer.start, answer.end) == (offsets[first][0], offsets[last][1])
    assert answer.answer == context[answer.start : answer.end]
    assert answer.score == pytest.approx(score, abs=1e-3)
    assert answer.no_answer_score == pytest.approx(start[0] * end[0], abs=1e-3)


def test_a_long_context_is_read_to_its_end(make: Make) -> None:
    artifact = make(architecture("BERT (answers)"))
    predictor = Predictor.open(artifact)
    context = "the film was made by somebody in some town " * 8
    (whole,) = predictor.predict([("who?", context)])
    assert isinstance(whole, Span)
    assert whole.answer == context[whole.start : whole.end]
    reached = [row.encoding.offsets[-2][1] for row, _ in predictor.outputs([("who?", context)])]
    assert len(reached) > 4
    assert max(reached) == len(context.rstrip())


def test_masks_are_filled_as_by_transformers(make: Make, stranger: Stranger) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

    artifact = make(architecture("BERT (masked)"))
    stranger.proves(artifact)
    folder = checkpoint_of(artifact)
    theirs = pipeline(
        "fill-mask",
        model=AutoModelForMaskedLM.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        top_k=3,
    )
    text = "a [MASK]ilm"
    (answer,) = Predictor.open(artifact).predict([text], top_k=3)
    assert isinstance(answer, Filled)
    expected = theirs(text)
    assert [(one.token_id, one.token) for one in answer.masks[0]] == [
        (one["token"], one["token_str"]) for one in expected
    ]
    np.testing.assert_allclose([one.score for one in answer.masks[0]], [one["score"] for one in expected], atol=1e-3)
    assert answer.text == expected[0]["sequence"]
    (two,) = Predictor.open(artifact).predict(["[MASK] and [MASK]"])
    assert isinstance(two, Filled)
    assert [len(mask) for mask in two.masks] == [5, 5]
    with pytest.raises(UserError, match=r"no \[MASK\] to fill"):
        Predictor.open(artifact).predict(["nothing to fill"])


def test_texts_become_vectors(make: Make, stranger: Stranger) -> None:
    import torch
    from transformers import AutoModel

    artifact = make(architecture("MPNet"), pooling=Pooling(PoolingMode.MEAN, normalize=True))
    stranger.proves(artifact)
    model = AutoModel.from_pretrained(checkpoint_of(artifact)).eval()
    for text, answer in zip(TEXTS, Predictor.open(artifact).predict(TEXTS), strict=True):
        encoded = {name: torch.as_tensor(value) for name, value in tokenized(artifact, text).items()}
        with torch.inference_mode():
            mean = model(**encoded).last_hidden_state[0].mean(dim=0)
        assert isinstance(answer, Embedding)
        np.testing.assert_allclose(answer.vector, (mean / mean.norm()).numpy(), atol=1e-4)


def test_a_vector_for_each_token_is_no_embedding(make: Make) -> None:
    with pytest.raises(UserError, match="a vector for each token") as caught:
        make(architecture("T5 encoder"))
    assert "--pooling" in caught.value.hint


PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "to one size": {"kind": "ViTImageProcessor", "size": {"height": 32, "width": 32}},
    "the middle of a larger one": {
        "kind": "DeiTImageProcessor",
        "size": {"height": 40, "width": 40},
        "crop_size": {"height": 32, "width": 32},
    },
    "by the shorter edge": {
        "kind": "BitImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
    },
    "by a share": {"kind": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "padded with black": {
        "kind": "BitImageProcessor",
        "do_resize": False,
        "crop_size": {"height": 32, "width": 32},
    },
}


EVERY_RUN = ("by the shorter edge",)
"""It resizes and cuts, of which the others are put together."""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=() if name in EVERY_RUN else pytest.mark.exhaustive)
        for name, options in PROCESSORS.items()
    ],
)
def test_pictures_are_prepared_as_by_transformers(
    make: Make, tmp_path: Path, options: Mapping[str, Any], stranger: Stranger
) -> None:
    import transformers
    from PIL import Image

    def save_processor(folder: Path) -> None:
        kind = getattr(transformers, options["kind"])
        kind(**{name: value for name, value in options.items() if name != "kind"}).save_pretrained(folder)

    item = replace(architecture("ViT"), image=None)
    artifact = make(item, save_processor)
    stranger.proves(artifact)
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (31, 77, 3)).astype(np.uint8))
    picture.save(tmp_path / "picture.png")
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint_of(artifact))
    expected = softmax(pytorch(artifact, item, **processor(images=picture, return_tensors="np"))["logits"])
    data = (tmp_path / "picture.png").read_bytes()
    for answer in Predictor.open(artifact).predict([tmp_path / "picture.png", data, np.asarray(picture)]):
        assert isinstance(answer, Prediction)
        np.testing.assert_allclose(list(answer.scores.values()), expected, atol=1e-3)
    (told,) = stranger.predicts(artifact, tmp_path / "picture.png")
    np.testing.assert_allclose(list(told["scores"].values()), expected, atol=1e-3)


def test_a_processor_that_does_something_else_is_refused(make: Make) -> None:
    def save_processor(folder: Path) -> None:
        processor = {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True}
        (folder / "preprocessor_config.json").write_text(
            json.dumps({**processor, "size": {"height": 32, "width": 32}, "rescale_factor": 0.5})
        )

    with pytest.raises(UserError, match="cannot be packed: EfficientNetImageProcessor"):
        make(replace(architecture("ViT"), image=None), save_processor)


@pytest.mark.parametrize("name", ["Wav2Vec2 (classes)", "AST"])
def test_recordings_are_prepared_as_by_transformers(make: Make, tmp_path: Path, name: str, stranger: Stranger) -> None:
    from transformers import ASTFeatureExtractor, AutoFeatureExtractor, Wav2Vec2FeatureExtractor

    def save_extractor(folder: Path) -> None:
        kind = ASTFeatureExtractor(num_mel_bins=16, max_length=64) if name == "AST" else Wav2Vec2FeatureExtractor()
        kind.save_pretrained(folder)

    item = architecture(name)
    artifact = make(item, save_extractor)
    stranger.proves(artifact)
    random = np.random.default_rng(1)
    recordings = [
        (0.3 * np.sin(np.arange(length) / 9) + 0.05 * random.standard_normal(length)).astype(np.float32)
        for length in (16_000, 20_000, 16_000)
    ]
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint_of(artifact))
    for answer, samples in zip(Predictor.open(artifact).predict(recordings), recordings, strict=True):
        inputs = extractor(samples, sampling_rate=16_000, return_tensors="np")
        logits = pytorch(artifact, item, input_values=inputs["input_values"].astype(np.float32))["logits"]
        assert isinstance(answer, Prediction)
        np.testing.assert_allclose(list(answer.scores.values()), softmax(logits), atol=1e-3)
    (tmp_path / "sound.wav").write_bytes(wav(recordings[0]))
    (told,) = stranger.predicts(artifact, tmp_path / "sound.wav")
    assert told["file"] == str(tmp_path / "sound.wav")
    (tmp_path / "other.wav").write_bytes(wav(recordings[0], rate=44_100))
    with pytest.raises(UserError, match="44,100 samples a second") as caught:
        Predictor.open(artifact).predict([tmp_path / "other.wav"])
    assert "ffmpeg" in caught.value.hint


def test_golden_files_are_files_of_their_kind(make: Make) -> None:
    from transformers import ViTImageProcessor

    artifact = make(
        replace(architecture("ViT"), image=None),
        lambda folder: ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder),
    )
    golden = json.loads((artifact / "golden.json").read_text())
    for example in golden["examples"]:
        assert base64.b64decode(example["file"]).startswith(b"\x89PNG")
    assert "pillow==" in (artifact / "requirements.txt").read_text()
