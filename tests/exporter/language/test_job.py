"""Decoders exported by the command: what is judged, stored once, kept, and refused."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

from artifact.generate.decoder import Decoder
from artifact.language import LanguageVariant, Sizes
from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import UserError
from exporter.language.blocks import in_blocks
from exporter.language.export import export_language
from exporter.language.gate import continuation, greedy, prediction, reasons
from exporter.language.passages import read_passages
from exporter.language.reference import Reference
from exporter.language.sizes import sizes_of
from exporter.options import Options, Profile, Target, Weights
from exporter.request import Request, Source
from exporter.save import load_graph, save_graph
from models.checkpoint import load_model, load_tokenizer
from models.rows import Columns
from tests.conftest import loaded_after, within
from tests.exporter.conftest import session
from tests.gguf_file import write_gguf

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT4)


@pytest.fixture(scope="module")
def exported(language_run: Path) -> Path:
    return language_run


def variant(run: Path, precision: Precision) -> LanguageVariant:
    return msgspec.json.decode((run / "variants" / precision / "variant.json").read_bytes(), type=LanguageVariant)


def test_fp32_is_pytorch(exported: Path) -> None:
    found = variant(exported, Precision.FP32)
    assert found.passed
    assert found.prediction.error_fraction < 1e-5
    assert found.prediction.agreement_fraction.value == 1
    assert abs(found.prediction.divergence_nats.value) < 1e-6
    assert (found.continuation.equal, found.continuation.prompts) == (4, 4)
    assert found.continuation.cached_error_fraction < 1e-5
    assert "perplexity" in (exported / "variants.md").read_text()


def test_the_perplexity_is_the_one_that_transformers_computes(
    exported: Path, learnt_llama: Path, sentences: Path
) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(learnt_llama), AutoTokenizer.from_pretrained(learnt_llama)
    total, tokens = 0.0, 0
    for text in sentences.read_text().splitlines()[1:]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    found = variant(exported, Precision.FP32).prediction
    assert found.tokens == tokens
    assert found.perplexity == pytest.approx(np.exp(total / tokens), rel=1e-4)


@pytest.mark.parametrize(("precision", "bits"), [(Precision.INT8_DYNAMIC, 8), (Precision.INT4, 4)])
def test_rounded_weights_predict_nearly_the_same(exported: Path, precision: Precision, bits: int) -> None:
    found = variant(exported, precision)
    assert (found.weight_bits, found.operators["MatMulNBits"]) == (bits, 2 * 4 + 1)  # what reads the same is one
    assert 1e-7 < found.prediction.divergence_nats.value < (1e-4 if bits == 8 else 1e-3)
    assert 0.99 < found.prediction.perplexity_ratio.value < 1.01
    most = 1e-3 if bits == 8 else 2e-3  # some CPUs have kernels of their own for a row alone, which round otherwise
    assert found.continuation.cached_error_fraction < most


@pytest.mark.parametrize(("precision", "most"), [(Precision.FP16, 1e-6), (Precision.BF16, 1e-4)])
def test_half_weights_say_the_same_tokens(exported: Path, precision: Precision, most: float) -> None:
    found = variant(exported, precision)
    assert (found.weight_bits, found.head_bits, found.block_size, found.emulated) == (16, 16, None, True)
    assert found.cache.bytes_per_token == variant(exported, Precision.FP32).cache.bytes_per_token / 2
    assert 1e-10 < found.prediction.divergence_nats.value < most
    assert found.continuation.equal + found.continuation.near_ties == found.continuation.prompts
    assert f"{precision}: half arithmetic was emulated" in (exported / "variants.md").read_text()


def test_a_shared_table_is_stored_once(exported: Path) -> None:
    for precision in PRECISIONS:
        graph = onnx.load(exported / "variants" / precision / "model.onnx")
        found = variant(exported, precision)
        tables = [96, 8]  # cosines and sines of every position, which a small model has many of
        stored = sum(len(item.raw_data) for item in graph.graph.initializer if list(item.dims) != tables)
        words, size = 100, 64
        assert words <= found.weights
        head, rest = words * size, found.weights - words * size
        bytes_each = {32: 4.0, 16: 2.0, 8: 1 + 3 / 32, 4: 0.5 + 2.5 / 32}
        expected = rest * bytes_each[found.weight_bits] + head * bytes_each[found.head_bits]
        assert 0.95 * expected < stored < 1.05 * expected


def test_table_and_head_have_the_bits_that_are_asked_for(
    exported: Path, learnt_llama: Path, sentences: Path, tmp_path: Path
) -> None:
    """A word has 64 numbers: half a byte less for each, and for the zero points of its two blocks one byte instead of
    two."""
    request = Request(
        learnt_llama,
        tmp_path / "run",
        (Precision.INT4,),
        data=Source(sentences, Columns(), 500),
        calibration=Source(sentences, Columns()),
        options=Options(head_bits=4),
    )
    *_, made = export_language(request)
    found, usual = variant(tmp_path / "run", Precision.INT4), variant(exported, Precision.INT4)
    assert made.variant == found
    assert (found.head_bits, usual.head_bits, found.weight_bits) == (4, 8, 4)
    stored = [
        sum(len(item.raw_data) for item in onnx.load(run / "variants" / "int4" / "model.onnx").graph.initializer)
        for run in (exported, tmp_path / "run")
    ]
    assert stored[0] - stored[1] == found.sizes.vocabulary * (64 / 2 + 1)
    assert usual.prediction.divergence_nats.value < found.prediction.divergence_nats.value < 1e-3
    assert found.continuation.cached_error_fraction < 2e-3
    assert [item.made for item in export_language(request)] == [False]


def test_what_is_there_is_not_made_again(exported: Path, learnt_llama: Path, sentences: Path) -> None:
    source = Source(sentences, Columns(), 500)
    request = Request(learnt_llama, exported, PRECISIONS, data=source, calibration=Source(sentences, Columns()))
    program = f"""
from pathlib import Path
from artifact.precision import Precision
from exporter.language.export import export_language
from exporter.request import Request, Source
from models.checkpoint import writes_text
from models.rows import Columns
model, texts = Path({str(learnt_llama)!r}), Path({str(sentences)!r})
assert writes_text(model)
precisions = tuple(map(Precision, {list(map(str, PRECISIONS))!r}))
data, calibration = Source(texts, Columns(), 500), Source(texts, Columns())
again = export_language(Request(model, Path({str(exported)!r}), precisions, data=data, calibration=calibration))
assert [item.made for item in again] == [False] * len(precisions)
"""
    assert not loaded_after(program) & {"torch", "transformers"}
    (exported / "variants" / "int4" / "model.onnx").write_bytes(b"damaged")
    assert [item.made for item in export_language(request)] == [False, False, False, False, True]


def test_a_damaged_graph_is_caught(exported: Path, learnt_llama: Path, sentences: Path, tmp_path: Path) -> None:
    """One layer's weights scaled by a tenth more: its perplexity and its tokens give it away."""
    graph = load_graph(exported / "variants" / "fp32" / "model.onnx")
    name = next(name for name in graph.graph.initializers if "up_proj" in name)
    value = graph.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = onnx_ir.tensor(1.5 * value.const_value.numpy(), name=name)
    save_graph(graph, tmp_path / "model.onnx")
    model = load_model(learnt_llama)
    passages = read_passages(Source(sentences, Columns()), load_tokenizer(learnt_llama), 96)
    decoder = Decoder(session(tmp_path / "model.onnx"), 96)
    found = prediction(decoder, Reference(model, passages))
    said = reasons(Precision.FP32, found, continuation(decoder, passages, greedy(model, passages, 96)))
    assert any("a logit differs" in reason for reason in said)


def test_rounding_by_what_a_layer_reads_errs_less_on_it() -> None:
    random = torch.Generator().manual_seed(0)
    mixed = torch.randn(64, 64, generator=random) / 8
    read = torch.randn(512, 64, generator=random) @ mixed
    weight = torch.randn(32, 64, generator=random)

    def error(moments: torch.Tensor | None) -> float:
        blocks = in_blocks(weight, 4, 32, moments)
        whole = np.stack([blocks.packed & 15, blocks.packed >> 4], axis=-1).reshape(32, 2, 32).astype(np.float32)
        zeros = np.stack([blocks.zeros & 15, blocks.zeros >> 4], axis=-1).reshape(32, 2).astype(np.float32)
        rounded = ((whole - zeros[..., None]) * blocks.scales[..., None]).reshape(32, 64)
        return float(((read @ (torch.from_numpy(rounded) - weight).T) ** 2).mean())

    assert error(read.T @ read) < 0.7 * error(None)


def test_a_gguf_file_is_unpacked_and_exported(learnt_llama: Path, sentences: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    write_gguf(learnt_llama, file)
    (exported,) = export_language(Request(file, tmp_path / "run", (Precision.FP32,), data=Source(sentences, Columns())))
    assert exported.variant.passed
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint").state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(learnt_llama).state_dict()
    assert all(torch.allclose(ours[name], weight, atol=1e-6) for name, weight in theirs.items())
    told = json.loads((tmp_path / "run" / "gguf.json").read_text())
    assert told["file"] == "small.gguf"
    (again,) = export_language(Request(file, tmp_path / "run", (Precision.FP32,), data=Source(sentences, Columns())))
    assert not again.made


def test_what_decoders_are_not_made_in_is_refused(learnt_llama: Path, tmp_path: Path) -> None:
    done = within("export", learnt_llama, "--out", tmp_path / "run", "--precisions", "int8-static")
    assert done.returncode == 2
    assert "int8-static is not made of language models yet" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"options": Options(target=Target.ARM)}, "--target"),
        ({"options": Options(weights=Weights.UNSIGNED)}, "--weights"),
        ({"options": Options(profile=Profile.ORT_GPU)}, "--profile"),
        ({"opset": 18}, "--opset"),
        ({"pooling": Pooling(PoolingMode.MEAN)}, "--pooling"),
    ],
)
def test_what_would_do_nothing_is_refused(
    learnt_llama: Path, tmp_path: Path, options: dict[str, Any], flag: str
) -> None:
    with pytest.raises(UserError, match=f"{flag} as given does nothing for language models"):
        export_language(Request(learnt_llama, tmp_path / "run", (Precision.FP32,), **options))
    assert not (tmp_path / "run").exists()


def test_no_checkpoint_is_replaced_by_an_unpacked_one(learnt_llama: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin()
    shutil.copytree(learnt_llama, run.own_checkpoint)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="has a checkpoint of its own"):
        export_language(Request(tmp_path / "small.gguf", run.directory, (Precision.FP32,)))
    assert (run.own_checkpoint / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=99, n_embd=32, n_head=4, n_layer=1),
        LlamaConfig(vocab_size=99, hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=8),
    ],
    ids=lambda config: config.model_type,
)
def test_sizes_are_found_by_whichever_names_they_have(config: Any) -> None:
    assert sizes_of(SimpleNamespace(config=config)) == Sizes(vocabulary=99, hidden=32, attention_heads=4)


def test_a_broken_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + os.urandom(64))
    done = within("export", tmp_path / "broken.gguf", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "broken.gguf cannot be read" in done.stderr
    missing = within("export", tmp_path / "none.gguf", "--out", tmp_path / "run")
    assert (missing.returncode, "none.gguf does not exist" in missing.stderr) == (2, True)


def test_a_row_does_not_depend_on_its_batch(exported: Path) -> None:
    decoder = Decoder(session(exported / "variants" / "int4" / "model.onnx"), 96)
    rows = [[7, 8, 9], [11], [12, 13, 14, 15, 16]]
    together = decoder.begin(3, 8).prompt(rows)
    for row, found in zip(rows, together, strict=True):
        alone = decoder.begin(1, 8).prompt([row])[0]
        assert np.abs(alone - found).max() <= 1e-4 * np.abs(alone).max()


def test_a_cache_says_what_does_not_fit(exported: Path) -> None:
    decoder = Decoder(session(exported / "variants" / "fp32" / "model.onnx"), 96)
    with pytest.raises(UserError, match="97 tokens are more than this model's context of 96"):
        decoder.begin(1, 97)
    with pytest.raises(UserError, match="a prompt is empty"):
        decoder.begin(1, 4).prompt([[]])
    with pytest.raises(UserError, match="has 5 tokens, and the cache room for 4"):
        decoder.begin(1, 4).prompt([[1, 2, 3, 4, 5]])
    decoding = decoder.begin(1, 2)
    decoding.prompt([[1, 2]])
    with pytest.raises(UserError, match="the cache of 2 tokens is full"):
        decoding.step(np.array([3]))
