"""`golden.json`: examples that an artifact proves itself with."""

from collections.abc import Callable, Collection, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray


class GoldenExample(msgspec.Struct, frozen=True, kw_only=True):
    """A text, its token ids, and the logits of the PyTorch fp32 reference for it alone."""

    text: str
    input_ids: tuple[int, ...]
    logits: tuple[float, ...]


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """`golden.json`. `tolerance` bounds the absolute error of a logit; a run's own file has none yet (0)."""

    schema_version: int
    checkpoint_sha256: str
    tolerance: float
    examples: tuple[GoldenExample, ...]


def largest_error(
    run: Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]], golden: Golden, names: Collection[str]
) -> float:
    """Largest absolute error of a logit over the examples, each answered alone by `run` from the inputs `names`.

    What is not finite counts as the largest number there is.
    """
    errors = []
    for example in golden.examples:
        ids = np.asarray([example.input_ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = run({name: array for name, array in inputs.items() if name in names})[0].astype(np.float64)
        errors.append(np.abs(logits - np.asarray(example.logits)).max())
    return float(np.nan_to_num(errors, nan=np.finfo(np.float64).max).max())
