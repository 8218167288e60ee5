"""Every kind of answer that is right or wrong, exported and compared by the command; right is what PyTorch says."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from artifact.task import Task
from exporter.export import export
from exporter.request import Request, Source
from measure.order import pairs_of
from models.rows import Columns
from tests.conftest import TEXTS, within
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


def rows_of_texts() -> Rows:
    return [{"text": text, "label": "AB"[number % 2]} for number, text in enumerate(TEXTS)]


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


def rows_of_scores() -> Rows:
    return [{"text": text, "label": len(text) + number / 100} for number, text in enumerate(TEXTS)]


def rows_of_questions() -> Rows:
    """Any run of words answers the first half of the questions, and nothing in the context the others."""
    rows = []
    for number, text in enumerate(TEXTS):
        words = text.replace(",", "").split()
        runs = [" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)]
        answers = runs if number < len(TEXTS) // 2 else ["nothing of it"]
        rows.append({"question": TEXTS[-1 - number], "context": " ".join(words), "answers": {"text": answers}})
    return rows


def right_vectors(checkpoint: Path, rows: Rows) -> list[bool]:
    model, tokenizer = AutoModel.from_pretrained(checkpoint).eval(), tokens(checkpoint)
    with torch.no_grad():
        states = [model(**tokenizer(row["text"], return_tensors="pt")).last_hidden_state[0] for row in rows]
    vectors = torch.nn.functional.normalize(torch.stack([state.mean(0) for state in states]), dim=-1)
    nearest = (vectors @ vectors.T - 2 * torch.eye(len(rows))).argmax(-1).tolist()
    return [rows[near]["label"] == row["label"] for near, row in zip(nearest, rows, strict=True)]


def right_scores(checkpoint: Path, rows: Rows) -> list[bool]:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval(), tokens(checkpoint)
    scores = [model(**tokenizer(row["text"], return_tensors="pt")).logits.item() for row in rows]
    pairs = pairs_of(np.array([row["label"] for row in rows]))
    return [(scores[a] > scores[b]) == (rows[a]["label"] > rows[b]["label"]) for a, b in pairs]


def right_answers(checkpoint: Path, rows: Rows) -> list[bool]:
    model, tokenizer = AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval(), tokens(checkpoint)
    found = []
    for row in rows:
        asked = (row["question"], row["context"])
        encoding = tokenizer(*asked, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
        offsets, inside = encoding.pop("offset_mapping")[0].tolist(), encoding.sequence_ids(0)
        logits = model(**encoding)
        start, end = logits.start_logits[0].tolist(), logits.end_logits[0].tolist()
        places = [place for place, part in enumerate(inside) if part == 1]
        spans = [(start[a] + end[b], a, b) for a in places for b in places if a <= b < a + 30]
        _, first, last = max(spans)
        said = row["context"][offsets[first][0] : offsets[last][1]]
        found.append(any(said.split() == answer.split() for answer in row["answers"]["text"]))
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
    task: Task | None = None
    pooling: Pooling | None = None
    measure: str = "accuracy"


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
    Kind(
        "vectors",
        "texts",
        rows_of_texts,
        right_vectors,
        task=Task.FEATURE_EXTRACTION,
        pooling=Pooling(PoolingMode.MEAN, normalize=True),
        measure="1-NN accuracy",
    ),
    Kind(
        "scores",
        "pairs",
        rows_of_scores,
        right_scores,
        BertForSequenceClassification,
        ("score",),
        "regression",
        measure="pairwise accuracy",
    ),
    Kind("answers", "questions", rows_of_questions, right_answers, BertForQuestionAnswering, measure="exact match"),
)


def written(kind: Kind, tiny_checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """The checkpoint of such a model, and its data."""
    checkpoint, data = folder / "checkpoint", folder / "data.jsonl"
    shutil.copytree(tiny_checkpoint, checkpoint)
    if kind.model is not None:
        torch.manual_seed(1)
        config = BertConfig.from_pretrained(tiny_checkpoint)
        if kind.labels:
            config.id2label = dict(enumerate(kind.labels))
            config.label2id = {name: number for number, name in enumerate(kind.labels)}
        config.problem_type = kind.problem
        kind.model(config).eval().save_pretrained(checkpoint)  # type: ignore[operator]  # torch leaves it untyped
    data.write_text("".join(f"{json.dumps(row)}\n" for row in kind.rows()), encoding="utf-8")
    return checkpoint, data


def exported(kind: Kind, tiny_checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """A run of such a model, and its data."""
    checkpoint, data = written(kind, tiny_checkpoint, folder)
    export(
        Request(
            checkpoint,
            folder / "run",
            (Precision.FP32,),
            data=Source(data, Columns()),
            task=kind.task,
            pooling=kind.pooling,
        )
    )
    return folder / "run", data


EVERY_RUN = ("vectors",)
"""The others are left to `make test-all`: how they decide, and that they go the whole way, has tests of its own."""


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=kind.name, marks=() if kind.name in EVERY_RUN else pytest.mark.exhaustive)
        for kind in KINDS
    ],
)
def test_a_candidate_is_right_where_pytorch_is(kind: Kind, tiny_checkpoint: Path, tmp_path: Path) -> None:
    run, data = exported(kind, tiny_checkpoint, tmp_path)
    asked = ("--candidates", "torch-cpu/fp32,ort-cpu/fp32", "--batch-sizes", "3", "--lengths", "16,natural")
    done = within("compare", run, "--data", data, "--budget", "smoke", *asked, "--json")
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
        assert quality["neighbours_fraction"] == (1 if kind.name == "vectors" else None)
    report = (run / "report.md").read_text()
    assert ("| 10 nearest |" in report) is (kind.name == "vectors")
    assert f"Its {kind.measure} is " in report
    assert f" on {len(right)} {kind.counted} " in report
    packed = within("pack", run, "--candidate", "ort-cpu/fp32", "--out", tmp_path / "artifact")
    assert packed.returncode == 0, packed.stderr
    card = (tmp_path / "artifact" / "README.md").read_text()
    assert f" on {len(right)} {kind.counted}, PyTorch fp32 " in card
    assert kind.measure in card.lower().replace("-nn", "-NN")


def test_one_text_is_not_taken_for_a_pair(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run, _ = exported(KINDS[0], tiny_checkpoint, tmp_path)
    single = tmp_path / "single.csv"
    single.write_text("text,label\na film,positive\n")
    done = within("compare", run, "--data", single, "--budget", "smoke")
    fails(done, 2, "holds no second text")
    assert "--pair-column" in done.stderr


def test_words_are_not_tokenised_from_raw_texts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint, data = written(KINDS[2], tiny_checkpoint, tmp_path)
    done = within("compare", checkpoint, "--data", data, "--lengths", "text", "--out", tmp_path / "run")
    fails(done, 2, "lists of words")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "regression"}, "a model that answers with several quantities"),
        ({"architectures": ["BertModel"]}, "a vector for each token"),
        ({"architectures": ["BertForMaskedLM"]}, "a model for fill-mask"),
    ],
)
def test_what_decides_nothing_is_not_compared(
    change: dict[str, Any],
    message: str,
    tiny_checkpoint: Path,
    reviews: Path,
    tmp_path: Path,
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    config = json.loads((checkpoint / "config.json").read_bytes())
    (checkpoint / "config.json").write_text(json.dumps(config | change))
    done = within("compare", checkpoint, "--data", reviews, "--out", tmp_path / "run", "--budget", "smoke")
    fails(done, 2, message)
    fails(within("load-test", checkpoint, "--data", reviews, "--out", tmp_path / "run"), 2, message)


def test_a_label_that_is_no_number_is_named_with_its_row(tiny_checkpoint: Path, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "scores")
    checkpoint, _ = written(kind, tiny_checkpoint, tmp_path)
    data = tmp_path / "scores.csv"
    data.write_text("text,label\na film,1.5\nanother film,many\n")
    done = within("compare", checkpoint, "--data", data, "--out", tmp_path / "run")
    fails(done, 2, "scores.csv, row 3: the label 'many' is not a number")
