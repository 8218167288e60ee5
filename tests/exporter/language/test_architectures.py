"""Decoders of many architectures, small and random: one graph says what `generate` says, with its cache and without."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconMambaConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from artifact.generate.decoder import Decoder
from artifact.precision import Precision
from errors import UserError
from exporter.language.decoder_trace import cache_shape, trace
from exporter.save import save_graph
from runtimes.openvino_cpu_language import EngineLanguage
from tests.exporter.conftest import session

WORDS = 120
STATES = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
}
SIZES = {**STATES, "intermediate_size": 96, "num_attention_heads": 4, "max_position_embeddings": 64}
FEWER = {"num_key_value_heads": 2}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, **FEWER, tie_word_embeddings=True),
    "mistral, window": MistralConfig(**SIZES, **FEWER, sliding_window=6),
    "qwen2": Qwen2Config(**SIZES, **FEWER),
    "qwen3": Qwen3Config(**SIZES, **FEWER, head_dim=16),
    "gemma2": Gemma2Config(**SIZES, **FEWER, head_dim=16, query_pre_attn_scalar=16, sliding_window=6),
    "phi": PhiConfig(**SIZES),
    "gpt-neox": GPTNeoXConfig(**SIZES, rotary_pct=0.5),
    "gpt2": GPT2Config(
        vocab_size=WORDS, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=None
    ),
    "opt": OPTConfig(
        vocab_size=WORDS,
        hidden_size=64,
        ffn_dim=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=64,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    ),
    "mamba": MambaConfig(**STATES, state_size=8),
    "falcon-mamba": FalconMambaConfig(**STATES, state_size=8),
    "mamba2": Mamba2Config(**STATES, state_size=16, num_heads=8, head_dim=16, n_groups=2, chunk_size=16),
    "lfm2, both": Lfm2Config(**SIZES, **FEWER, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
}
STEPS = 24
ROWS = ([5], [7, 11, 13, 17, 19, 23, 29], [3, 2, 1])
"""Prompts of unequal length, one of a single token."""


def generated(model: Any, rows: tuple[list[int], ...]) -> list[list[int]]:
    """What transformers continues each with, greedily, one at a time."""
    config = GenerationConfig(do_sample=False, max_new_tokens=STEPS, pad_token_id=0)
    found = []
    for row in rows:
        given = torch.tensor([row])
        said = model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)
        found.append(said[0, len(row) :].tolist())
    return found


MORE = ("qwen2", "qwen3", "gpt-neox", "opt", "phi", "falcon-mamba", "mamba2")
"""Much like others of these."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.exhaustive] if name in MORE else []) for name in CONFIGS],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model and its graph; tracing left the model as it was."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param], dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.ndim > 1 else 1)  # so that the likeliest token is clear
    before = generated(model, ROWS[:1])
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    save_graph(trace(model), path)
    assert generated(model, ROWS[:1]) == before
    return model, path


def test_one_graph_continues_as_generate_does(exported: tuple[Any, Path]) -> None:
    model, graph = exported
    wanted = generated(model, ROWS)
    decoder = Decoder(session(graph), cache_shape(model).context)

    decoding = decoder.begin(len(ROWS), 48)
    logits = [decoding.prompt(ROWS)]
    for _ in range(STEPS - 1):
        logits.append(decoding.step(logits[-1].argmax(axis=-1)))
    found = np.stack(logits, axis=1)
    assert found.argmax(axis=-1).tolist() == wanted

    for row, said, steps in zip(ROWS, wanted, found, strict=True):
        whole = np.array([[*row, *said[:-1]]])
        with torch.inference_mode():
            expected = model(torch.from_numpy(whole)).logits[0, len(row) - 1 :].numpy()
        uncached = decoder.every(whole, np.ones_like(whole))[0, len(row) - 1 :]
        scale = np.abs(expected).max()
        assert np.abs(steps - expected).max() <= 1e-4 * scale
        assert np.abs(uncached - expected).max() <= 1e-4 * scale


def opened(graph: Path) -> EngineLanguage:
    return EngineLanguage(graph, Precision.FP32, 1)


def test_openvino_continues_as_generate_does(exported: tuple[Any, Path]) -> None:
    """Its own cache, rotation and windows: one row after another, then all of one length at once.

    It says itself that it has no attention with bounded scores; states are not kept there yet.
    """
    model, graph = exported
    if cache_shape(model).state_bytes:
        with pytest.raises(UserError, match="whose layers all keep keys and values"), opened(graph):
            pass
        return
    if getattr(model.config, "attn_logit_softcapping", None):
        with pytest.raises(UserError, match="GroupQueryAttention"), opened(graph):
            pass
        return
    with opened(graph) as runtime:
        for row, said in zip(ROWS, generated(model, ROWS), strict=True):
            continuing = runtime.begin(1, 48)
            logits = [continuing.prompt([row])]
            for _ in range(STEPS - 1):
                logits.append(continuing.step(logits[-1].argmax(axis=-1)))
            assert np.stack(logits)[:, 0].argmax(axis=-1).tolist() == said
        rows = np.array([said[-9:] for said in generated(model, ROWS)])
        with torch.inference_mode():
            expected = model(torch.from_numpy(rows)).logits.numpy()
        executed = runtime.executes(rows, np.ones_like(rows))
        kernels = dict(executed.kernels) if executed else {}
        assert sum(count for name, count in kernels.items() if name.startswith("ScaledDotProductAttention")) == 2
        assert not any(name.startswith("Softmax") for name in kernels)  # no attention was taken apart
        continuing = runtime.begin(len(rows), 9)
        found = [continuing.prompt(rows[:, :4].tolist()), *(continuing.step(rows[:, at]) for at in range(4, 9))]
    assert np.abs(np.stack(found, axis=1) - expected[:, 3:]).max() <= 1e-4 * np.abs(expected).max()


def test_a_recurrence_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A modelling file whose function of that name computes something else."""
    model = AutoModelForCausalLM.from_config(CONFIGS["mamba"], dtype=torch.float32).eval()
    file = sys.modules[type(model).__module__]
    own = file.mamba_selective_scan

    def doubled(*given: Any, **more: Any) -> Any:
        found = own(*given, **more)
        return (2 * found[0], found[1]) if isinstance(found, tuple) else 2 * found

    monkeypatch.setattr(file, "mamba_selective_scan", doubled)
    with pytest.raises(UserError, match="MambaForCausalLM keep a state by a recurrence that cannot be exported yet"):
        trace(model)
