"""Inputs and answers from transformers and onnxruntime, beside our own code."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

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
    """The tiny model is slower on two threads, and other tests may be running."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
