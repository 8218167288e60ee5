from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

from exporter.fuse import FUSABLE, fuse, fusions
from exporter.options import Profile
from exporter.save import load_graph
from tests.exporter.conftest import tokenize
from tests.exporter.graphs import as_bytes, graph, node, run

TEXTS = ["a warm and funny film", "dull, slow and far too long", "not bad"]


def _fused(path: Path, profile: Profile) -> tuple[onnx_ir.Model, Counter[tuple[str, str]]]:
    """A traced graph at one profile, and its operators as onnx counts them."""
    made = fuse(load_graph(path), profile)
    return made, Counter((item.domain, item.op_type) for item in onnx.load_from_string(as_bytes(made)).graph.node)


def test_portable_changes_nothing(traced_path: Path, traced_bytes: bytes) -> None:
    made, found = _fused(traced_path, Profile.PORTABLE)
    assert as_bytes(made) == traced_bytes
    assert {domain for domain, _ in found} == {""}
    assert fusions(made).fused == {}
    assert fusions(made).unfused == {name: found["", name] for name in FUSABLE if found["", name]}


def test_for_cpus_norms_and_activations_are_fused_and_attention_is_not(traced_path: Path) -> None:
    made, found = _fused(traced_path, Profile.ORT)
    report = fusions(made)
    # two layers: a norm after attention and one after the feed-forward in each, and one activation in each
    assert report.fused["SkipLayerNormalization"] == found["com.microsoft", "SkipLayerNormalization"] >= 4
    assert report.fused["BiasGelu"] == found["com.microsoft", "BiasGelu"] == 2
    assert report.unfused["Softmax"] == found["", "Softmax"] == 2
    assert "MultiHeadAttention" not in report.fused
    assert report.unfused.get("LayerNormalization", 0) == found["", "LayerNormalization"]


def test_for_gpus_attention_is_fused_too(traced_path: Path) -> None:
    made, found = _fused(traced_path, Profile.ORT_GPU)
    report = fusions(made)
    assert report.fused["MultiHeadAttention"] == found["com.microsoft", "MultiHeadAttention"] == 2
    assert "Softmax" not in report.unfused
    assert report.fused["SkipLayerNormalization"] >= 4


@pytest.mark.parametrize("profile", [Profile.ORT, Profile.ORT_GPU])
def test_a_fused_graph_computes_the_same(traced_path: Path, tiny_checkpoint: Path, profile: Profile) -> None:
    batch = tokenize(tiny_checkpoint, TEXTS)
    assert (batch["attention_mask"] == 0).any()
    (expected,) = run(traced_path, batch)
    (found,) = run(fuse(load_graph(traced_path), profile), batch)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("profile", [Profile.ORT, Profile.ORT_GPU])
def test_a_fused_graph_is_as_clean_and_as_repeatable(traced_path: Path, profile: Profile) -> None:
    data = as_bytes(fuse(load_graph(traced_path), profile))
    assert data == as_bytes(fuse(load_graph(traced_path), profile))
    model = onnx.load_from_string(data)
    assert {item.domain for item in model.opset_import} == {item.domain for item in model.graph.node}
    assert not any(item.metadata_props or item.doc_string for item in model.graph.node)
    names = [item.name for item in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_what_may_be_fused_and_is_not_is_told() -> None:
    nodes = [node("Gelu", ["x"], "g"), node("Softmax", ["g"], "s"), node("Softmax", ["s"], "y")]
    made = graph(nodes, {"x": ("n", 4)}, {"y": ("n", 4)}, {})
    assert (fusions(made).fused, fusions(made).unfused) == ({}, {"Gelu": 1, "Softmax": 2})
