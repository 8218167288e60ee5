"""Pairs of texts, several labels and tagged words, exported and compared by the command; right is what PyTorch says."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from artifact.precision import Precision
from exporter.export import export
from exporter.request import Request, Source
from models.rows import Columns
from tests.conftest import TEXTS, Steelyard
from tests.test_cli import fails

pytestmark = pytest.mark.slow
LABELS = ("cold", "funny", "long")
TAGS = ("O", "B-MOOD", "I-MOOD")
Rows = Sequence[Mapping[str, Any]]


def rows_of_pairs() -> Rows:
    return [
        {"sentence1": text, "sentence2": TEXTS[-1 - number], "label": ("negative", "positive")[number % 2]}
        for number, text in enumerate(TEXTS)
    ]


def rows_of_labels() -> Rows:
    return [{"text": text, "labels": list(LABELS[: number % 4])} for number, text in enumerate(TEXTS)]


def rows_of_words() -> Rows:
    lines = [text.replace(",", "").split() for text in (*TEXTS, " ".join(TEXTS * 3))]
    return [{"tokens": words, "tags": [TAGS[(len(word) + at) % 3] for at, word in enumerate(words)]} for words in lines]


def right_pairs(checkpoint: Path, rows: Rows) -> list[bool]:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval(), tokens(checkpoint)
    found = []
    for row in rows:
        logits = model(**tokenizer(row["sentence1"], row["sentence2"], return_tensors="pt")).logits[0]
        found.append(model.config.id2label[int(logits.argmax())] == row["label"])
    return found


def right_labels(checkpoint: Path, rows: Rows) -> list[bool]:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval(), tokens(checkpoint)
    found = []
    for row in rows:
        scores = model(**tokenizer(row["text"], return_tensors="pt")).logits[0].detach().sigmoid()
        found += [(float(score) > 0.5) == (name in row["labels"]) for name, score in zip(LABELS, scores, strict=True)]
    return found


def right_words(checkpoint: Path, rows: Rows) -> list[bool]:
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(checkpoint).eval(), tokens(checkpoint)
    found = []
    for row in rows:
        encoding = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, return_tensors="pt")
        best = model(**encoding).logits[0].argmax(-1).tolist()
        words = encoding.word_ids(0)
        kept = [number for number in range(len(row["tokens"])) if number in words]
        found += [model.config.id2label[best[words.index(number)]] == row["tags"][number] for number in kept]
    return found


def tokens(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


@dataclass(frozen=True)
class Kind:
    name: str
    counted: str
    rows: Callable[[], Rows]
    right: Callable[[Path, Rows], list[bool]]
    model: type[torch.nn.Module] | None = None
    labels: tuple[str, ...] = ()
    problem: str | None = None


KINDS = (
    Kind("pairs", "examples", rows_of_pairs, right_pairs),
    Kind(
        "labels",
        "labels",
        rows_of_labels,
        right_labels,
        BertForSequenceClassification,
        LABELS,
        "multi_label_classification",
    ),
    Kind("words", "words", rows_of_words, right_words, BertForTokenClassification, TAGS),
)


def exported(kind: Kind, tiny_checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """A run of such a model, and its data."""
    checkpoint, data = folder / "checkpoint", folder / "data.jsonl"
    shutil.copytree(tiny_checkpoint, checkpoint)
    if kind.model is not None:
        torch.manual_seed(1)
        config = BertConfig.from_pretrained(tiny_checkpoint)
        config.id2label = dict(enumerate(kind.labels))
        config.label2id = {name: number for number, name in enumerate(kind.labels)}
        config.problem_type = kind.problem
        kind.model(config).eval().save_pretrained(checkpoint)  # type: ignore[operator]  # torch leaves it untyped
    data.write_text("".join(f"{json.dumps(row)}\n" for row in kind.rows()), encoding="utf-8")
    export(Request(checkpoint, folder / "run", (Precision.FP32,), data=Source(data, Columns())))
    return folder / "run", data


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_candidate_is_right_where_pytorch_is(
    kind: Kind, tiny_checkpoint: Path, steelyard: Steelyard, tmp_path: Path
) -> None:
    run, data = exported(kind, tiny_checkpoint, tmp_path)
    asked = ("--candidates", "torch-cpu/fp32,ort-cpu/fp32", "--batch-sizes", "3", "--lengths", "16,natural")
    done = steelyard("compare", run, "--data", data, "--budget", "smoke", *asked, "--json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    right = kind.right(tmp_path / "checkpoint", kind.rows())
    assert 0 < sum(right) < len(right)
    scored = {row["name"]: row["quality"] for row in verdict["rows"] if row["quality"]}
    assert set(scored) == {"torch-cpu/fp32", "ort-cpu/fp32"}
    for quality in scored.values():
        assert quality["examples"] == len(right)
        assert quality["accuracy_fraction"] == pytest.approx(sum(right) / len(right))
        assert quality["agreement_fraction"] == 1
    assert f" on {len(right)} {kind.counted} " in (run / "report.md").read_text()
    packed = steelyard("pack", run, "--candidate", "ort-cpu/fp32", "--out", tmp_path / "artifact")
    assert packed.returncode == 0, packed.stderr
    assert f" on {len(right)} {kind.counted}, PyTorch fp32 " in (tmp_path / "artifact" / "README.md").read_text()


def test_one_text_is_not_taken_for_a_pair(tiny_checkpoint: Path, steelyard: Steelyard, tmp_path: Path) -> None:
    run, _ = exported(KINDS[0], tiny_checkpoint, tmp_path)
    single = tmp_path / "single.csv"
    single.write_text("text,label\na film,positive\n")
    done = steelyard("compare", run, "--data", single, "--budget", "smoke")
    fails(done, 2, "holds no second text")
    assert "--pair-column" in done.stderr


def test_words_are_not_tokenised_from_raw_texts(tiny_checkpoint: Path, steelyard: Steelyard, tmp_path: Path) -> None:
    run, data = exported(KINDS[2], tiny_checkpoint, tmp_path)
    done = steelyard("compare", run, "--data", data, "--lengths", "text", "--budget", "smoke")
    fails(done, 2, "lists of words")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "regression"}, "a model that answers with a quantity"),
        ({"architectures": ["BertForQuestionAnswering"]}, "no classifier of texts or words"),
    ],
)
def test_what_decides_nothing_is_not_compared(
    change: dict[str, Any],
    message: str,
    tiny_checkpoint: Path,
    reviews: Path,
    steelyard: Steelyard,
    tmp_path: Path,
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    config = json.loads((checkpoint / "config.json").read_bytes())
    (checkpoint / "config.json").write_text(json.dumps(config | change))
    done = steelyard("compare", checkpoint, "--data", reviews, "--out", tmp_path / "run", "--budget", "smoke")
    fails(done, 2, message)
    fails(steelyard("load-test", checkpoint, "--data", reviews, "--out", tmp_path / "run"), 2, message)
