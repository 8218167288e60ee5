"""Checkpoints that answer with a pooled vector or with several outputs, beside the libraries that made them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering

from artifact.judged import Judged
from artifact.sentences import declared_pooling
from measure.source import find_models
from models.embedded import minilm
from runtimes.base import Batch, Head
from runtimes.registry import known_candidate, open_runtime
from tests.conftest import TEXTS

VECTOR = Head(("sentence_embedding",), declared_pooling(minilm()))
ANSWER = Head(("start_logits", "end_logits"))


def batch_of(checkpoint: Path, *texts: str) -> Batch:
    return dict(AutoTokenizer.from_pretrained(checkpoint)(list(texts), padding=True, return_tensors="np"))


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    return np.asarray(SentenceTransformer(str(minilm()), device="cpu").encode(list(TEXTS)))


def test_a_folder_of_sentence_transformers_answers_with_its_vectors() -> None:
    source = find_models(minilm())
    assert (source.judged, source.head) == (Judged.VECTOR, VECTOR)


@pytest.mark.parametrize(
    ("name", "cosine"),
    [
        ("torch-cpu/fp32", 1 - 1e-6),
        ("torch-cpu/bf16", 0.995),
        pytest.param("torch-cpu/int8-dynamic", 0.97, marks=pytest.mark.slow),
        pytest.param("torch-cpu/fp32+compile", 1 - 1e-6, marks=pytest.mark.exhaustive),
        pytest.param("torch-cpu/int8-dynamic+compile", 0.97, marks=pytest.mark.exhaustive),
    ],
)
def test_vectors_are_those_of_sentence_transformers(name: str, cosine: float, expected: NDArray[np.float32]) -> None:
    with open_runtime(known_candidate(name), minilm(), 2, head=VECTOR) as runtime:
        found = runtime.run(batch_of(minilm(), *TEXTS))
    assert list(found) == ["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(found["sentence_embedding"], axis=-1), 1, atol=1e-2)
    assert (found["sentence_embedding"] * expected).sum(-1).min() > cosine


@pytest.fixture(scope="module")
def asked(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    torch.manual_seed(3)
    BertForQuestionAnswering(BertConfig.from_pretrained(tiny_checkpoint)).eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "name", ["torch-cpu/fp32", pytest.param("torch-cpu/fp32+compile", marks=pytest.mark.exhaustive)]
)
def test_several_outputs_have_the_names_of_the_graphs(name: str, asked: Path) -> None:
    batch = batch_of(asked, *TEXTS[:3])
    with torch.no_grad():
        wanted = BertForQuestionAnswering.from_pretrained(asked)(**{k: torch.tensor(v) for k, v in batch.items()})
    with open_runtime(known_candidate(name), asked, 1, head=ANSWER) as runtime:
        found = runtime.run(batch)
    assert set(found) == {"start_logits", "end_logits"}
    for output, array in found.items():
        np.testing.assert_allclose(array, wanted[output].numpy(), atol=1e-5)
    together = ANSWER.one(found)
    assert together.shape == (*batch["input_ids"].shape, 2)
    np.testing.assert_array_equal(together[..., 1], found["end_logits"])
