"""Attention as one operator: which models have it, that nothing changes but padding, and what is left alone."""

from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
import transformers

from artifact.precision import Precision
from exporter.attend import attend
from exporter.export import export
from exporter.request import Request, Source
from exporter.save import load_graph, save_graph
from tests.exporter.architectures import ARCHITECTURES, write_checkpoint
from tests.exporter.conftest import onnx_logits, session, tokenize, torch_logits
from tests.exporter.graphs import graph, node, operators, run

FUSES = {"BERT": True, "ALBERT": True, "GPT-2": True, "Llama": False}
"""What each model has of its own: nothing, two layers of one weight, a causal mask, keys that heads share."""

EVERY_RUN = ("BERT", "GPT-2", "Llama")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EVERY_RUN else pytest.mark.exhaustive) for name in FUSES]
)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    (architecture,) = [item for item in ARCHITECTURES if item.name == name]
    checkpoint = write_checkpoint(architecture, tmp_path / "checkpoint")
    (exported,) = export(Request(checkpoint, tmp_path / "run", (Precision.FP32,)))
    made = load_graph(exported.path)
    count = attend(made)
    assert bool(count) is FUSES[name]
    assert operators(made).count("MultiHeadAttention") == count
    assert ("Softmax" not in operators(made)) is FUSES[name]
    save_graph(made, tmp_path / "model.onnx")
    opened = session(tmp_path / "model.onnx")
    model = getattr(transformers, architecture.kind).from_pretrained(checkpoint, attn_implementation="eager").eval()
    for rows, length in ((1, 1), (3, 7), (2, 40)):
        mask = (np.arange(length) < np.array([length, max(1, length // 2), 1])[:rows, None]).astype(np.int64)
        ids = np.where(mask, np.random.default_rng(rows).integers(6, 99, (rows, length)), model.config.pad_token_id)
        batch = {"input_ids": ids, "attention_mask": mask}
        batch |= {"token_type_ids": np.zeros_like(ids)} if architecture.pairs else {}
        with torch.inference_mode():
            expected = model(**{key: torch.from_numpy(array) for key, array in batch.items()}).logits.numpy()
        np.testing.assert_allclose(opened.run(None, batch)[0], expected, atol=1e-4 * np.abs(expected).max())


def test_int8_for_onnxruntime_has_it_and_the_graph_of_all_engines_has_not(
    tiny_checkpoint: Path, export_texts: Source, tmp_path: Path
) -> None:
    precisions = (Precision.FP32, Precision.INT8_DYNAMIC)
    fp32, rounded = (
        item.variant for item in export(Request(tiny_checkpoint, tmp_path / "run", precisions, data=export_texts))
    )
    assert (fp32.operators["Softmax"], rounded.operators["MultiHeadAttention"]) == (2, 2)
    assert "MultiHeadAttention" not in fp32.operators
    assert "Softmax" not in rounded.operators
    assert rounded.minimum_onnxruntime == "1.22"
    batch = tokenize(tiny_checkpoint, ["a warm and funny film", "dull"])
    found = onnx_logits(tmp_path / "run" / "variants" / "int8-dynamic" / "model.onnx", batch)
    expected = torch_logits(tiny_checkpoint, batch)
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()  # of rounding: weights are random


def attention(*, bias: tuple[str | int, ...] = ("n", 1, "s", "s"), seen: bool = False, axis: int = -1) -> onnx_ir.Model:
    """Two heads of two numbers, as PyTorch traces it; `seen` tells the probabilities, too."""
    shape = ("n", "s", 4)
    constants = {
        "split": np.array([0, 0, 2, 2]),
        "turn": np.array([-1, 3, 2]),
        "back": np.array([-1, 2, 2, 3]),
        "join": np.array([0, 0, 4]),
        "half": np.array(0.5, dtype=np.float32),
        "third": np.array(1 / 3, dtype=np.float32),
    }
    nodes = []
    for name in ("q", "k", "v"):
        nodes += [
            node("Reshape", [name, "split"], f"{name}4"),
            node("Transpose", [f"{name}4"], f"{name}h", perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Reshape", ["kh", "turn"], "k3"),
        node("Transpose", ["k3"], "kt3", perm=[0, 2, 1]),
        node("Reshape", ["kt3", "back"], "kt"),
        node("Mul", ["qh", "half"], "qs"),
        node("Mul", ["kt", "third"], "ks"),
        node("MatMul", ["qs", "ks"], "scores"),
        node("Add", ["scores", "bias"], "biased"),
        node("Softmax", ["biased"], "shares", axis=axis),
        node("MatMul", ["shares", "vh"], "summed"),
        node("Transpose", ["summed"], "swapped", perm=[0, 2, 1, 3]),
        node("Reshape", ["swapped", "join"], "y"),
    ]
    inputs = {**dict.fromkeys("qkv", shape), "bias": bias}
    outputs = {"y": shape, **({"shares": ("n", 2, "s", "s")} if seen else {})}
    made = graph(nodes, inputs, outputs, constants)
    for value in (item for made_by in made.graph for item in made_by.outputs):
        if value.name in ("q4", "k4", "v4"):
            value.shape = onnx_ir.Shape(("n", "s", 2, 2))
    return made


def test_by_hand() -> None:
    draw = np.random.default_rng(0)
    q, k, v = (draw.standard_normal((2, 3, 4)).astype(np.float32) for _ in "qkv")
    bias = draw.standard_normal((2, 1, 3, 3)).astype(np.float32)
    made = attention()
    assert attend(made) == 1
    assert operators(made) == ["MultiHeadAttention", "Reshape"]
    bias[1, 0, 2] = np.finfo(np.float32).min  # it may look at nothing
    (found,) = run(made, {"q": q, "k": k, "v": v, "bias": bias})
    np.testing.assert_allclose(found[1, 2], v[1].mean(axis=0), atol=1e-5)
    for head in (slice(0, 2), slice(2, 4)):
        scores = q[..., head] @ k[..., head].swapaxes(1, 2) / 6 + bias[:, 0]
        grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = grown / grown.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(found[..., head], shares @ v[..., head], atol=1e-5)


@pytest.mark.parametrize(
    "made",
    [attention(seen=True), attention(bias=("n", 1, 1, "s")), attention(bias=("s", "s")), attention(axis=2)],
    ids=["probabilities are told", "a bias for all tokens alike", "a bias of two axes", "shares of queries"],
)
def test_anything_else_is_left_as_it_is(made: onnx_ir.Model) -> None:
    before = operators(made)
    assert attend(made) == 0
    assert operators(made) == before
