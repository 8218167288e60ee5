"""An encoder's graph: what a decoder attends to of the things that are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDS, MASK = "input_ids", "attention_mask"
FEATURES = "input_features"
READ, READ_MASK = "read", "read_mask"

Given = Mapping[str, NDArray[Any]]
"""Inputs of a graph by their names."""

NOTHING: Given = {}

Read = Sequence[int] | NDArray[np.float32]
"""What is read of one row: the ids of a text, or the features of a recording, (bins, frames)."""


def encoder_of(decoder: Path) -> Path:
    """The graph that reads for a decoder's: in every run and artifact they lie in one folder, and are called so."""
    return decoder.with_name(decoder.name.replace("decoder", "encoder", 1))


class Encoder:
    """An open graph that reads rows once, before they are answered token by token."""

    def __init__(self, session: Any) -> None:
        """`session` is an `onnxruntime.InferenceSession`."""
        self._session = session
        self._names = [item.name for item in session.get_outputs()]

    def read(self, inputs: Given) -> Given:
        """Keys and values of each layer, float32 (rows, heads, read, head size), and the mask of what was read, where
        there is one."""
        found = dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))
        return found | ({READ_MASK: np.asarray(inputs[MASK])} if MASK in inputs else {})
