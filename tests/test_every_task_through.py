"""What was fine-tuned for a task is exported, judged on what was held out, packed, and answers: the whole way."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact.generate.generator import Generator
from artifact.generate.writer import Wanted
from artifact.pack import pack
from artifact.pack_language import pack_language
from artifact.precision import Precision
from artifact.predict.predictor import Predictor
from artifact.run_folder import RunFolder
from exporter.export import export
from exporter.language.export import export_language
from exporter.request import Request, Source
from models.rows import Columns
from models.training import TrainingRecord
from tests.conftest import SENTENCES
from tests.models.test_every_task import (
    Write,
    asked,
    base,
    digits,
    filled,
    learn_from,
    lines,
    retold,
    several,
    tagged,
    tiny_resnet,
    writer,
)
from tests.models.test_hearing import learn_from as learn_to_hear
from tests.models.test_hearing import recordings

__all__ = ["base", "digits", "lines", "recordings", "retold", "tiny_resnet"]


def _shipped(out: Path, record: TrainingRecord) -> Predictor:
    """An artifact of the fp32 variant, which is as good as what training says of its checkpoint."""
    run = RunFolder(out)
    (made,) = export(Request(run.own_checkpoint, out, (Precision.FP32,), data=Source(run.evaluation_data, Columns())))
    variant = made.variant
    assert variant.parity.passed
    assert variant.metric is not None
    assert (variant.metric.name, variant.metric.examples) == (record.metric, record.data.examples["evaluation"])
    assert variant.metric.value == pytest.approx(record.value.value, abs=1e-6)
    pack(run, Precision.FP32, out / "artifact", card=None, card_reason="a test")
    return Predictor.open(out / "artifact")


def _writing(out: Path, record: TrainingRecord, rel: float) -> Generator:
    """The same of a model that writes, whose export finds the perplexity that its training tells."""
    run = RunFolder(out)
    data = Source(run.evaluation_data, Columns())
    (made,) = export_language(Request(run.own_checkpoint, out, (Precision.FP32,), data=data, is_language=True))
    prediction = made.variant.prediction
    assert made.variant.passed
    assert (prediction.texts, prediction.inputs) == (record.data.examples["evaluation"], "evaluation.csv")
    assert prediction.perplexity == pytest.approx(record.value.value, rel=rel)
    pack_language(run, Precision.FP32, out / "artifact", card=None, card_reason="a test")
    return Generator.open(out / "artifact")


def _pair(draw: random.Random, warm: bool) -> dict[str, Any]:
    second = " ".join(filled(draw, "warm" if warm else "slow"))
    return {"text": " ".join(filled(draw)), "text_pair": second, "label": "yes" if warm else "no"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "item", "said"),
    [
        (lambda draw, at: _pair(draw, at % 2 == 0), ("it is", "a warm film"), "yes"),
        pytest.param(lambda draw, at: several(at, draw), "a warm film", "WARM", marks=pytest.mark.exhaustive),
        (lambda draw, at: tagged(draw), ["it", "is", "warm"], "MOOD"),
        (lambda draw, at: asked(draw), ("what is it", "it is warm and funny back"), "warm and funny"),
    ],
    ids=["pairs", "several labels", "tags", "answers"],
)
def test_texts_go_the_whole_way(
    base: Path, lines: Write, tmp_path: Path, make: Callable[[random.Random, int], dict[str, Any]], item: Any, said: str
) -> None:
    draw = random.Random(9)
    record = learn_from(base, lines([make(draw, at) for at in range(320)]), tmp_path / "run")
    predictor = _shipped(tmp_path / "run", record)
    assert said in str(predictor.predict([item])[0])


@pytest.mark.exhaustive
def test_pictures_go_the_whole_way(tiny_resnet: Path, digits: Path, tmp_path: Path) -> None:
    record = learn_from(tiny_resnet, digits, tmp_path / "run", config={"epochs": 8, "learning_rate": 5e-3})
    predictor = _shipped(tmp_path / "run", record)
    answers = predictor.predict([digits.parent / f"{number}.png" for number in range(40)])
    assert sum(answer.label == str(number % 4) for number, answer in enumerate(answers)) >= 24  # type: ignore[union-attr]


@pytest.mark.slow
def test_rewriting_goes_the_whole_way(tiny_checkpoint: Path, retold: Path, tmp_path: Path) -> None:
    config = {"held_out": 20, "epochs": 12, "learning_rate": 1e-2}
    record = learn_from(writer("t5", tiny_checkpoint, tmp_path / "base"), retold, tmp_path / "run", config=config)
    asked = ["it is what it is, a warm film", "two hours about the best year"]
    found = _writing(tmp_path / "run", record, 1e-5).complete(asked, Wanted(20))
    assert [written.text for written in found] == ["warm", "the best of the year"]
    assert record.data.examples["evaluation"] == 20


@pytest.mark.exhaustive
def test_hearing_goes_the_whole_way(learnt_whisper: Path, recordings: Path, tmp_path: Path) -> None:
    """Which language it writes is said once, when it learns it."""
    record = learn_to_hear(learnt_whisper, recordings, tmp_path / "run")
    found = _writing(tmp_path / "run", record, 1e-4).complete([recordings.parent / "2-5.wav"], Wanted(20))
    assert [written.text for written in found] == [SENTENCES[1]]
    assert record.data.examples["evaluation"] == 8
