"""Texts as a classifier takes them, and what it answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.progress import Progress

Encoded = dict[str, Any]
"""One text's inputs by name."""


def encode(tokenizer: Any, texts: Sequence[str]) -> tuple[list[Encoded], float]:
    """Each text's inputs, and the fraction of texts that were cut to the tokenizer's limit."""
    encoded = tokenizer(list(texts), truncation=True)
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
    rows = [{name: values[row] for name, values in encoded.items()} for row in range(len(texts))]
    return rows, sum(length > tokenizer.model_max_length for length in lengths) / len(lengths)


def answers(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int, progress: Progress, stage: str
) -> NDArray[np.float32]:
    """Logits of a model for each row, shape (rows, labels), computed in batches of similar length."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
    logits = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        batch = tokenizer.pad([rows[row] for row in picked], return_tensors="pt")
        with torch.inference_mode():
            logits[picked] = model(**batch.to(model.device)).logits.float().cpu().numpy()
        progress(stage, start + len(picked), len(order))
    return logits
