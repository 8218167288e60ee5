"""16-bit decoders, small and random: their cache has 16 bits too, and they say nearly what PyTorch fp32 says."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, T5Config, T5ForConditionalGeneration

from artifact.generate.cache import PAST
from artifact.generate.decoder import Decoder
from artifact.generate.encoder import READ, Encoder
from artifact.precision import Precision
from exporter.half import emulate
from exporter.language.decoder_trace import trace
from exporter.language.derivations import DERIVATIONS
from exporter.language.derive import Seen, derive
from exporter.language.seq2seq.traces import trace as trace_both
from exporter.options import Options
from exporter.save import load_graph, save_graph
from exporter.sessions import graph_session
from tests.exporter.conftest import session
from tests.exporter.language.test_architectures import FEWER, SIZES

BOTH = pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
IDS = np.array([[5, 9, 13, 7, 21, 6], [8, 6, 30, 11, 12, 40]])
ERRORS = {Precision.FP16: 5e-3, Precision.BF16: 4e-2}
"""Of a logit, as a share of the largest."""


def halved(graph: onnx_ir.Model, precision: Precision, path: Path) -> Path:
    made, _ = derive(DERIVATIONS[precision], graph, Options(), Seen())
    save_graph(made, path)
    return path


def emulated(path: Path, precision: Precision) -> Any:
    half = DERIVATIONS[precision].half
    assert half is not None
    return graph_session(emulate(load_graph(path), half))


def types(path: Path, begin: str) -> set[int]:
    graph = onnx.load(path).graph
    values = [item for item in (*graph.input, *graph.output) if item.name.startswith(begin)]
    return {item.type.tensor_type.elem_type for item in values}


def told(decoder: Decoder, ids: Any, read: Any = None) -> tuple[Any, Any]:
    """Logits of one pass, and of steps with the cache."""
    given = {} if read is None else read
    decoding = decoder.begin(len(ids), ids.shape[1], given)
    steps = [decoding.prompt(ids[:, :1].tolist()), *(decoding.step(ids[:, at]) for at in range(1, ids.shape[1]))]
    return decoder.every(ids, np.ones_like(ids), given), np.stack(steps, axis=1)


@pytest.mark.parametrize("tied", [True, False])
@BOTH
def test_a_decoder_in_16_bits_says_nearly_the_same(precision: Precision, tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, **FEWER, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS)).logits.numpy()
    path = halved(trace(model), precision, tmp_path / "model.onnx")
    half = DERIVATIONS[precision].half
    assert types(path, PAST) == types(path, "present.") == {int(half or 0)}
    assert types(path, "logits") == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}  # and where they are asked for
    stored = sum(len(item.raw_data) for item in onnx.load(path).graph.initializer)
    weights = sum(weight.numel() for weight in model.parameters())  # a tied table counts once
    tables = 2 * SIZES["max_position_embeddings"] * 8  # type: ignore[operator]
    assert stored == pytest.approx(2 * (weights + tables), rel=0.01)
    sessions = [emulated(path, precision), *([session(path)] if precision is Precision.FP16 else [])]
    for opened in sessions:
        decoder = Decoder(opened, 64)
        for found in told(decoder, IDS):
            assert np.abs(found - expected).max() <= ERRORS[precision] * np.abs(expected).max()
    assert decoder.shape.bytes_per_position == (2 if precision is Precision.FP16 else 4) * 2 * 2 * 2 * 16


@pytest.mark.parametrize("precision", [Precision.FP16, pytest.param(Precision.BF16, marks=pytest.mark.exhaustive)])
def test_an_encoder_hands_over_16_bits(precision: Precision, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=120, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
    model = T5ForConditionalGeneration(config).eval()
    read = {"input_ids": IDS, "attention_mask": np.array([[1] * 6, [1] * 2 + [0] * 4])}
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in read.items()}
        expected = model(**given, decoder_input_ids=torch.from_numpy(IDS[:, ::-1].copy())).logits.numpy()
    traced = trace_both(model)
    encoder = halved(traced.encoder, precision, tmp_path / "encoder.onnx")
    decoder = halved(traced.decoder, precision, tmp_path / "decoder.onnx")
    half = int(DERIVATIONS[precision].half or 0)
    assert types(encoder, READ) == types(decoder, f"{READ}.") == types(decoder, PAST) == {half}
    pairs = [[emulated(path, precision) for path in (encoder, decoder)]]
    pairs += [[session(encoder), session(decoder)]] if precision is Precision.FP16 else []
    for reads, writes in pairs:
        for found in told(Decoder(writes, 64, Encoder(reads)), IDS[:, ::-1].copy(), read):
            assert np.abs(found - expected).max() <= ERRORS[precision] * np.abs(expected).max()
