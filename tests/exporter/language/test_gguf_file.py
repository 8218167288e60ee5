"""Files for llama.cpp hold the same weights: transformers, which reads such files, says so."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from artifact.language import GGUF, GGUF_RECORD, GgufFile
from artifact.precision import Precision
from artifact.records import read_json, sha256_file
from artifact.run_folder import RunFolder
from errors import UserError
from exporter.language.gguf_file import check_written, write_gguf
from measure.source import find_models
from runtimes.registry import known_candidate
from tests.conftest import copied, within
from tests.exporter.language.test_architectures import FEWER, SIZES

BITS = {
    Precision.FP32: 32.0,
    Precision.FP16: 16.0,
    Precision.BF16: 16.0,
    Precision.INT8_DYNAMIC: 8.5,
    Precision.INT4: 4.5,
}
"""Of each weight of a product: a block of 32 has a scale of 16 bits."""

WRITTEN: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, **FEWER, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES, **FEWER, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, **FEWER),
    "qwen3": Qwen3Config(**SIZES, **FEWER, head_dim=128),
}


def model_of(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_what_transformers_reads(name: str, tmp_path: Path) -> None:
    model = model_of(WRITTEN[name])
    write_gguf(model, Precision.FP32, tmp_path / "model.gguf")
    found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    wanted, read = model.state_dict(), found.state_dict()
    assert set(wanted) == set(read)
    for key, weight in wanted.items():
        assert torch.equal(weight, read[key]), key
    ids = torch.tensor([[5, 9, 13, 7]])
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, found(ids).logits, atol=1e-6)


@pytest.mark.parametrize("precision", BITS)
def test_products_have_the_bits_of_their_precision(precision: Precision, tmp_path: Path) -> None:
    write_gguf(model_of(WRITTEN["llama"]), precision, tmp_path / "model.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert "output.weight" not in tensors  # the head is the table
    for name, tensor in tensors.items():
        bits = 8 * tensor.n_bytes / tensor.n_elements
        table = max(BITS[precision], BITS[Precision.INT8_DYNAMIC])
        wanted = 32.0 if "norm" in name else table if name == "token_embd.weight" else BITS[precision]
        assert bits == wanted, name


def test_what_llama_cpp_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models of type gpt2 are not written for llama\.cpp"):
        check_written(GPT2Config().to_dict())
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    for config in (
        MistralConfig(**SIZES, **FEWER, sliding_window=8),
        LlamaConfig(**SIZES, **FEWER, rope_parameters=stretched),
    ):
        with pytest.raises(UserError, match="scales its rotation or looks through a window"):
            check_written(config.to_dict())
        with pytest.raises(UserError, match="scales its rotation"):
            write_gguf(model_of(config), Precision.FP32, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_them_beside_the_graphs_and_once(
    language_run: Path, rewriting_run: Path, learnt_llama: Path, sentences: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The graphs are there already and are kept; what was cut off is written again."""
    copy = copied(language_run, tmp_path / "copied")
    texts = ("--data", str(sentences), "--calibration", str(sentences))
    arguments = (str(learnt_llama), "--out", str(copy), "--precisions", "fp32,int4", *texts, "--gguf")
    run, source = RunFolder(copy), find_models(copy)
    assert set(source.ggufs) == set(BITS)
    candidate = known_candidate("llama-cpp/int4", language=True)
    folder = run.variant(Precision.INT4)
    assert source.model_files(candidate) == [folder / GGUF]
    record = read_json(folder / GGUF_RECORD, GgufFile)
    assert record.sha256 == sha256_file(folder / GGUF)
    for unable in (candidate, known_candidate("ort-genai/int4", language=True)):
        with pytest.raises(UserError, match="runs decoders alone so far"):
            find_models(rewriting_run).model(unable)
    (folder / GGUF_RECORD).rename(tmp_path / GGUF_RECORD)
    with pytest.raises(UserError, match=r"no int4 file for llama\.cpp") as missing:
        find_models(copy).model(candidate)
    assert "with --gguf" in missing.value.hint
    (tmp_path / GGUF_RECORD).rename(folder / GGUF_RECORD)

    before = (run.variant(Precision.FP32) / GGUF).stat().st_mtime_ns
    (folder / GGUF).write_bytes((folder / GGUF).read_bytes()[:100])
    done = within("export", *arguments)
    assert done.returncode in (0, 1), done.stderr
    assert "reused" in done.stdout
    assert sha256_file(folder / GGUF) == record.sha256
    assert (run.variant(Precision.FP32) / GGUF).stat().st_mtime_ns == before

    refused = within("export", tiny_checkpoint, "--out", tmp_path / "run", "--gguf")
    assert refused.returncode == 2
    assert "--gguf is for language models" in refused.stderr


def test_rounding_is_that_of_llama_cpps_own_package(tmp_path: Path) -> None:
    """Each block of 32 by itself: no weight is farther off than its block's step."""
    model = model_of(WRITTEN["qwen2"])
    write_gguf(model, Precision.INT4, tmp_path / "model.gguf")
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    tensor = read["blk.0.ffn_down.weight"]
    found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    weight = model.state_dict()["model.layers.0.mlp.down_proj.weight"].numpy()
    steps = np.abs(weight.reshape(-1, 32)).max(axis=1) / 8
    assert (np.abs(found - weight).reshape(-1, 32) <= steps[:, None] * 1.001).all()
