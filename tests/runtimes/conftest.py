"""What the tests of single engines share."""

from pathlib import Path

import numpy as np
import pytest

BATCH = {
    name: np.ones((2, 8), dtype=np.int64) * value
    for name, value in (("input_ids", 7), ("attention_mask", 1), ("token_type_ids", 0))
}


@pytest.fixture
def graph(tiny_run: Path) -> Path:
    return tiny_run / "variants" / "fp32" / "model.onnx"
