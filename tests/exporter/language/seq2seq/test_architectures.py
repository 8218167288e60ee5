"""Encoder-decoders of many architectures, small and random: two graphs write what `generate` writes, with the cache and
without."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    GenerationConfig,
    MarianConfig,
    MT5Config,
    T5Config,
    WhisperConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING as WRITERS
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING as LISTENERS

from artifact.generate.decoder import Decoder
from artifact.generate.encoder import Encoder
from errors import UserError
from exporter.language.seq2seq.traces import trace, writer_shape
from exporter.save import save_graph, weight_bytes
from tests.exporter.conftest import session

WORDS = 120
IDS = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 1, "decoder_start_token_id": 2}
BOTH = {
    "vocab_size": WORDS,
    "d_model": 64,
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 96 for part in ("encoder", "decoder")},
    **IDS,
}
TEXTS = {**BOTH, "max_position_embeddings": 64, "forced_eos_token_id": None}
T5 = {"vocab_size": WORDS, "d_model": 64, "d_ff": 96, "num_heads": 4, **IDS}
CONFIGS: dict[str, Any] = {
    "t5": T5Config(**T5, d_kv=16, num_layers=2, tie_word_embeddings=True),
    "mt5, uneven": MT5Config(**T5, d_kv=24, num_layers=3, num_decoder_layers=1, tie_word_embeddings=False),
    "bart": BartConfig(**TEXTS),
    "marian": MarianConfig(**TEXTS),
    "whisper": WhisperConfig(
        **BOTH, num_mel_bins=16, max_source_positions=50, max_target_positions=64, suppress_tokens=None
    ),
}
STEPS = 24


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    """Texts of unequal length, one of a single token, or recordings."""
    random = torch.Generator().manual_seed(1)
    if model.main_input_name == "input_features":
        return {"input_features": torch.randn(3, 16, 100, generator=random)}
    ids, mask = torch.randint(3, WORDS, (3, 9), generator=random), torch.ones(3, 9, dtype=torch.int64)
    mask[1, 4:], mask[2, 1:] = 0, 0
    return {"input_ids": ids.where(mask == 1, 1), "attention_mask": mask}


def generated(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What transformers writes greedily for each row alone, from the start token on."""
    config = GenerationConfig(do_sample=False, max_new_tokens=STEPS, decoder_start_token_id=2, pad_token_id=1)
    found = []
    for row in range(3):
        alone = {name: values[row : row + 1] for name, values in inputs.items()}
        if "attention_mask" in alone:
            alone = {name: values[:, : int(alone["attention_mask"].sum())] for name, values in alone.items()}
        found.append(model.generate(**alone, generation_config=config))
    started = [row if row[0, 0] == 2 else torch.cat([torch.tensor([[2]]), row], dim=1) for row in found]
    return torch.cat([row[:, : 1 + STEPS] for row in started])  # Whisper leaves its prompt out


MORE = ("mt5, uneven", "marian")
"""Much like others of these."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name in MORE else []) for name in CONFIGS]
)
def test_two_graphs_write_as_generate_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kinds = {**WRITERS, **LISTENERS}
    model = kinds[type(CONFIGS[name])](CONFIGS[name]).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)  # so that the likeliest token is clear
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn(head.weight.shape))  # a tied one says what it reads
    inputs = inputs_of(model)
    with torch.inference_mode():
        wanted = generated(model, inputs)
        expected = model(**inputs, decoder_input_ids=wanted[:, :-1], use_cache=False).logits.numpy()
    traced = trace(model)
    with torch.inference_mode():
        assert torch.equal(generated(model, inputs), wanted)  # the trace left the model as it was
    if name == "t5":  # whose table both graphs have; a layer's weights are in one of them
        stored = weight_bytes(traced.encoder) + weight_bytes(traced.decoder)
        table = model.get_input_embeddings().weight.numel()
        assert stored / 4 - table == pytest.approx(sum(weight.numel() for weight in model.parameters()), rel=0.01)
    save_graph(traced.encoder, tmp_path / "encoder.onnx")
    save_graph(traced.decoder, tmp_path / "decoder.onnx")
    encoder = Encoder(session(tmp_path / "encoder.onnx"))
    decoder = Decoder(session(tmp_path / "decoder.onnx"), writer_shape(model).context, encoder)

    ids, given = wanted[:, :-1].numpy(), {name: values.numpy() for name, values in inputs.items()}
    decoding = decoder.begin(len(ids), 48, given)
    steps = [decoding.prompt(ids[:, :1].tolist())]
    for _ in range(ids.shape[1] - 1):
        steps.append(decoding.step(steps[-1].argmax(axis=-1)))
    found = np.stack(steps, axis=1)
    assert found.argmax(axis=-1).tolist() == wanted[:, 1:].tolist()
    assert len(np.unique(wanted)) > 3
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= 1e-4 * scale
    assert np.abs(decoder.every(ids, np.ones_like(ids), given) - expected).max() <= 1e-4 * scale


def test_a_model_without_a_cache_is_refused() -> None:
    silent = WRITERS[T5Config](CONFIGS["t5"])
    forward = silent.forward
    with (
        patch.object(silent, "forward", lambda **given: forward(**{**given, "use_cache": False})),
        pytest.raises(UserError, match="T5ForConditionalGeneration has no cache of keys and values"),
    ):
        writer_shape(silent)
