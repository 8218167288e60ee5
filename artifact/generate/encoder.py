"""An encoder's graph: what a decoder attends to of the things that are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDS, MASK = "input_ids", "attention_mask"
FEATURES = "input_features"
READ, READ_MASK = "read", "read_mask"
HOST = "cpu"
"""The device that everything is kept on unless another is named, as ONNX Runtime calls it."""

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

    def __init__(self, session: Any, at: str = HOST) -> None:
        """`session` is an `onnxruntime.InferenceSession`; what it reads stays on the device `at`."""
        self._session, self._at = session, at
        self._names = [item.name for item in session.get_outputs()]

    def read(self, inputs: Given) -> dict[str, Any]:
        """Keys and values of each layer, (rows, heads, read, head size), and the mask of what was read, where there is
        one: each an `onnxruntime.OrtValue`."""
        import onnxruntime

        binding = self._session.io_binding()
        held = {name: np.ascontiguousarray(array) for name, array in inputs.items()}  # bound by their addresses
        for name, array in held.items():
            binding.bind_cpu_input(name, array)
        for name in self._names:
            binding.bind_output(name, self._at)
        self._session.run_with_iobinding(binding)
        found = dict(zip(self._names, binding.get_outputs(), strict=True))
        if MASK in inputs:
            found[READ_MASK] = onnxruntime.OrtValue.ortvalue_from_numpy(held[MASK], self._at, 0)
        return found
