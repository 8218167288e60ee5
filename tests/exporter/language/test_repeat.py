"""Decoders of layers that are alike: a few are traced and the last repeated, which must give what tracing all gives."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from artifact.generate.decoder import Decoder
from errors import UserError
from exporter.language import decoder_trace, stack
from exporter.language.decoder_trace import trace
from exporter.language.repeat import NotAlikeError, repeated
from exporter.language.stack import LEAST, TRACED, Stack
from exporter.save import save_graph
from tests.exporter.conftest import session

LAYERS = LEAST + 1
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 64} | {
    name: SIZES[name]
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
}
IDS = np.array([[5, 9, 13, 7, 21, 6], [8, 6, 30, 11, 12, 40]])


def made(config: PreTrainedConfig, *, like_trained: bool = True) -> Any:
    """A model of random weights; those that begin as ones or zeros differ from layer to layer as training has them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if like_trained and weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each trace that is made has."""
    found: list[int] = []
    whole = decoder_trace._traced

    def counted(model: Any) -> onnx_ir.Model:
        found.append(model.config.num_hidden_layers)
        return whole(model)

    monkeypatch.setattr(decoder_trace, "_traced", counted)
    return found


def logits(graph: onnx_ir.Model, path: Path) -> tuple[Any, Any]:
    """Of one pass, and of steps with the cache."""
    save_graph(graph, path)
    decoder = Decoder(session(path), 64)
    decoding = decoder.begin(len(IDS), IDS.shape[1], {})
    steps = [decoding.prompt(IDS[:, :1].tolist()), *(decoding.step(IDS[:, at]) for at in range(1, IDS.shape[1]))]
    return decoder.every(IDS, np.ones_like(IDS), {}), np.stack(steps, axis=1)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES),
        pytest.param(Qwen2Config(**SIZES), marks=pytest.mark.exhaustive),
        pytest.param(PhiConfig(**SIZES), marks=pytest.mark.exhaustive),
        pytest.param(OPTConfig(**OPT), marks=pytest.mark.exhaustive),
    ],
    ids=lambda config: config.model_type,
)
def test_it_is_the_graph_of_all_layers(
    config: Any, traces: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = made(config)
    found = trace(model)
    assert traces == [TRACED]
    monkeypatch.setattr(stack, "LEAST", LAYERS + 1)
    whole = trace(model)
    assert traces == [TRACED, LAYERS]
    for names in (
        lambda graph: [value.name for value in graph.graph.inputs],
        lambda graph: [value.name for value in graph.graph.outputs],
        lambda graph: Counter((node.name, node.op_type) for node in graph.graph),
        lambda graph: {name for name in graph.graph.initializers if "layers" in name},
    ):
        assert names(found) == names(whole)
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS)).logits.numpy()
    for mine, all_layers in zip(
        logits(found, tmp_path / "found.onnx"), logits(whole, tmp_path / "whole.onnx"), strict=True
    ):
        assert np.array_equal(mine, all_layers)
        assert np.abs(mine - expected).max() < 1e-5 * np.abs(expected).max()


def test_weights_that_layers_share_are_not_repeated(traces: list[int], tmp_path: Path) -> None:
    """Norms of ones are stored once, so the first layers do not tell whether those of the others are ones, too."""
    model = made(LlamaConfig(**SIZES), like_trained=False)
    with torch.no_grad():
        model.model.layers[-1].input_layernorm.weight.mul_(2)
    graph = trace(model)
    assert traces == [TRACED, LAYERS]
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS)).logits.numpy()
    for found in logits(graph, tmp_path / "model.onnx"):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_what_cannot_be_traced_in_part_is_traced_whole(traces: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: Stack, model: Any) -> Any:
        raise UserError("this model needs all its layers")

    monkeypatch.setattr(Stack, "shortened", short)
    assert len(trace(made(LlamaConfig(**SIZES))).graph.inputs) == 3 + 2 * LAYERS
    assert traces == [LAYERS]


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES | {"num_hidden_layers": LEAST - 1}),
        Gemma2Config(**SIZES, head_dim=16),  # every second layer looks back only so far
    ],
    ids=["few layers", "two kinds"],
)
def test_other_models_have_no_stack(config: Any) -> None:
    assert Stack.of(made(config)) is None


def test_layers_that_differ_are_seen() -> None:
    model = made(LlamaConfig(**SIZES))
    assert Stack.of(model) is not None
    model.model.layers[LAYERS - 1].self_attn.scaling *= 2
    assert Stack.of(model) is None
    model = made(LlamaConfig(**SIZES))
    model.model.layers[LAYERS - 1].mlp.up_proj.bias = torch.nn.Parameter(torch.ones(48))
    assert Stack.of(model) is None


def test_a_model_has_all_its_layers_again() -> None:
    model = made(Qwen2Config(**SIZES))
    types, found = list(model.config.layer_types), Stack.of(model)
    assert found is not None

    def stop() -> None:
        with found.shortened(model):
            assert (len(model.model.layers), model.config.num_hidden_layers) == (TRACED, TRACED)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop()
    assert (len(model.model.layers), model.config.num_hidden_layers) == (LAYERS, LAYERS)
    assert model.config.layer_types == types


def test_a_graph_whose_layers_do_not_follow_is_refused_and_left_as_it_was() -> None:
    model = made(LlamaConfig(**SIZES))
    found = Stack.of(model)
    assert found is not None
    with found.shortened(model):
        graph = decoder_trace._traced(model)
    nodes = [node.name for node in graph.graph]
    last = next(node for node in graph.graph if f"layers.{TRACED - 1}.mlp.act_fn/Mul" in str(node.name))
    before = next(node for node in graph.graph if f"layers.{TRACED - 2}.mlp.act_fn/Mul" in str(node.name))
    kept = last.inputs[0]
    for change, words in ((before.inputs[0], "reads something else"), (None, "reads something else")):
        last.replace_input_with(0, change)
        with pytest.raises(NotAlikeError, match=words):
            repeated(graph, found)
        last.replace_input_with(0, kept)
    told = graph.graph.outputs[1:]
    del graph.graph.outputs[1:]
    with pytest.raises(NotAlikeError, match="keeps nothing"):
        repeated(graph, found)
    graph.graph.outputs.extend(told)
    attention = next(node for node in graph.graph if f"layers.{TRACED - 1}.self_attn/Group" in str(node.name))
    attention.attributes["scale"] = onnx_ir.AttrFloat32("scale", 0.5)
    with pytest.raises(NotAlikeError, match="other attributes"):
        repeated(graph, found)
    assert [node.name for node in graph.graph] == nodes
