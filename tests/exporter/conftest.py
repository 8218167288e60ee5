"""Inputs and answers from transformers and onnxruntime, beside our own code."""

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

from exporter.from_checkpoint import checkpoint_subject
from exporter.subject import Subject
from exporter.trace import trace
from models.checkpoint import open_checkpoint

Arrays = Mapping[str, NDArray[np.int64]]


def tokenize(checkpoint: Path, texts: list[str]) -> dict[str, NDArray[np.int64]]:
    """A padded batch as transformers makes it."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return dict(tokenizer(texts, padding=True, truncation=True, return_tensors="np"))


def torch_logits(checkpoint: Path, batch: Arrays) -> NDArray[np.float32]:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    with torch.inference_mode():
        return np.asarray(model(**{name: torch.tensor(array) for name, array in batch.items()}).logits.numpy())


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_logits(path: Path, batch: Arrays) -> NDArray[np.float32]:
    return np.asarray(session(path).run(["logits"], dict(batch))[0])


def close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Equal up to a 10,000th of the largest expected logit."""
    return actual.shape == expected.shape and bool(np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max())


@pytest.fixture(scope="session")
def distilbert(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes no token_type_ids, with three labels."""
    folder = tmp_path_factory.mktemp("distilbert") / "checkpoint"
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, model_input_names=["input_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    )
    config.num_labels, config.initializer_range = 3, 0.5
    DistilBert(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tiny model is slower on two threads, and other tests may be running.

    The exporter collects garbage before each derivation, and need not look at all of torch each time.
    """
    gc.freeze()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_subject(tiny_checkpoint: Path) -> Subject:
    """The tiny BERT classifier as the exporter sees it."""
    return checkpoint_subject(open_checkpoint(tiny_checkpoint))


@pytest.fixture(scope="session")
def traced_bytes(tiny_subject: Subject) -> bytes:
    """Its traced graph, as a file's bytes; each test makes what it changes of it anew."""
    return bytes(onnx_ir.serde.serialize_model(trace(tiny_subject)).SerializeToString())


@pytest.fixture(scope="session")
def traced_path(traced_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a file that nobody writes to."""
    path = tmp_path_factory.mktemp("traced") / "model.onnx"
    path.write_bytes(traced_bytes)
    return path
