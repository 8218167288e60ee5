"""Pooled sentence vectors from the exported file, beside numpy on the states that transformers gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertModel

from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from artifact.task import Task
from errors import UserError
from exporter.export import Exported, export
from exporter.request import Request
from models.pooling import pool
from tests.exporter.architectures import Architecture, write_checkpoint
from tests.exporter.conftest import session

CONFIG = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
BERT = Architecture("BERT", "BertModel", Task.FEATURE_EXTRACTION, ("sequence",), CONFIG)
MASKS = {
    "right": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]],
}
ONE_ROW: dict[PoolingMode, Callable[[NDArray[Any]], NDArray[Any]]] = {
    PoolingMode.MEAN: lambda states: states.mean(axis=0),
    PoolingMode.CLS: lambda states: states[0],
    PoolingMode.MAX: lambda states: states.max(axis=0),
    PoolingMode.LAST: lambda states: states[-1],
}
"""What each mode makes of one row's states, padding left out."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(BERT, tmp_path_factory.mktemp("pooling") / "checkpoint")


@pytest.fixture(scope="module")
def pooled(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pooling], Exported]:
    """The checkpoint exported with a pooling; each is exported once."""
    known: dict[Pooling, Exported] = {}

    def make(pooling: Pooling) -> Exported:
        if pooling not in known:
            out = tmp_path_factory.mktemp("run")
            (known[pooling],) = export(Request(checkpoint, out, (Precision.FP32,), pooling=pooling))
        return known[pooling]

    return make


def pooled_by_numpy(states: NDArray[Any], mask: NDArray[Any], pooling: Pooling) -> NDArray[Any]:
    rows = [ONE_ROW[pooling.mode](row[keep.astype(bool)]) for row, keep in zip(states, mask, strict=True)]
    vectors = np.stack(rows)
    return vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True)) if pooling.normalize else vectors


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", PoolingMode)
@pytest.mark.parametrize("side", MASKS)
def test_pooling_is_that_of_numpy(mode: PoolingMode, normalize: bool, side: str) -> None:
    states = np.random.default_rng(1).standard_normal((3, 6, 32)).astype(np.float32)
    mask, pooling = np.array(MASKS[side]), Pooling(mode, normalize)
    found = pool(torch.tensor(states), torch.tensor(mask), pooling).numpy()
    np.testing.assert_allclose(found, pooled_by_numpy(states, mask, pooling), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "normalize"),
    [
        (PoolingMode.MEAN, True),
        (PoolingMode.CLS, False),
        *(pytest.param(mode, False, marks=pytest.mark.exhaustive) for mode in (PoolingMode.MEAN, PoolingMode.MAX)),
        (PoolingMode.LAST, True),
    ],
)
def test_the_file_pools_as_numpy_does(
    checkpoint: Path, pooled: Callable[[Pooling], Exported], mode: PoolingMode, normalize: bool
) -> None:
    exported = pooled(Pooling(mode, normalize))
    assert exported.variant.passed, exported.variant.reasons
    model = BertModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    ids = np.random.default_rng(3).integers(6, 99, (3, 6))
    for rows in MASKS.values():
        mask = np.array(rows)
        batch = {"input_ids": ids * mask, "attention_mask": mask}
        with torch.inference_mode():
            states = model(**{name: torch.tensor(array) for name, array in batch.items()}).last_hidden_state.numpy()
        expected = pooled_by_numpy(states, mask, Pooling(mode, normalize))
        (found,) = session(exported.path).run(["sentence_embedding"], batch)
        assert found.shape == (3, 32)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_the_vector_is_the_only_output_and_its_axes_are_told(pooled: Callable[[Pooling], Exported]) -> None:
    graph = onnx.load(pooled(Pooling(PoolingMode.MEAN, True)).path).graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "sentence_embedding": ["batch", 32],
    }


@pytest.mark.slow
def test_padding_changes_no_vector(pooled: Callable[[Pooling], Exported]) -> None:
    opened = session(pooled(Pooling(PoolingMode.MAX)).path)
    ids = np.random.default_rng(4).integers(6, 99, (1, 3))
    (alone,) = opened.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    wide = np.pad(ids, ((0, 0), (0, 5)))
    (padded,) = opened.run(None, {"input_ids": wide, "attention_mask": (wide > 0).astype(np.int64)})
    assert np.abs(alone - padded).max() <= 1e-5 * np.abs(alone).max()


def test_a_classifier_has_nothing_to_pool(tiny_checkpoint: Path, tmp_path: Path) -> None:
    request = Request(tiny_checkpoint, tmp_path / "run", (Precision.FP32,), pooling=Pooling(PoolingMode.MEAN))
    with pytest.raises(UserError, match="text-classification"):
        export(request)
    assert not (tmp_path / "run").exists()
