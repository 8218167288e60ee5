"""Engines that continue texts keep one contract."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from artifact.language import GGUF
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import UserError
from runtimes.base import Candidate
from runtimes.language import LanguageRuntime
from runtimes.registry import Source, candidates, entry, known_candidate, open_language, probe, worthwhile

SMALL_HEADS = known_candidate("llama-cpp/int4+cache-precision=q8_0", language=True)
"""It takes heads of whole blocks of 32, and this model's have 16."""

EVERY = tuple(
    item for item in worthwhile(candidates(None, None, every=True, language=True), language=True) if item != SMALL_HEADS
)
TOLERANCES = {
    Precision.FP32: 1e-4,
    Precision.TF32: 5e-3,
    Precision.FP16: 5e-3,
    Precision.BF16: 0.05,
    Precision.INT8_DYNAMIC: 0.05,
    Precision.INT4: 0.3,
}
"""Of a logit, as a share of the largest."""

ROUNDED = {"llama-cpp/fp32": 5e-3}
"""The same where a cache rounds by default: llama.cpp's has 16 bits."""

ALONE = ("ort-genai", "llama-cpp")
"""Runtimes of decoders alone."""

IDS = [[5, 9, 13, 7, 21, 6], [8, 6, 30, 11, 12, 40]]


def opened(candidate: Candidate, run: Path, graph: str = "model.onnx") -> LanguageRuntime:
    found, where, folder = probe(candidate.runtime), entry(candidate.runtime), RunFolder(run)
    lack = found.lack_of(candidate)
    if lack or not found.available:
        pytest.skip(lack.reason if lack else str(found.reason))
    variant = folder.variant(where.graph(candidate))
    models = {Source.CHECKPOINT: folder.checkpoint, Source.ONNX: variant / graph, Source.GGUF: variant / GGUF}
    model = models[where.source]
    assert model is not None
    return open_language(candidate, model, 2)


ON_HOST = (Precision.FP32, Precision.INT8_DYNAMIC, Precision.INT4)
"""Where ONNX Runtime has CUDA kernels of attention for 16 bits alone."""


def on_gpu(candidate: Candidate) -> bool:
    return candidate.runtime.endswith("-cuda")


def parameters(every: Iterable[Candidate]) -> Iterator[Any]:
    """Every candidate that can run; to compile takes long, and in bf16 it is the same code."""
    for item in every:
        if item.runtime == "ort-cuda" and item.precision in ON_HOST:
            continue
        is_more = item.precision is Precision.BF16 and "compile" in item.options
        marks = [*([pytest.mark.exhaustive] if is_more else []), *([pytest.mark.gpu] if on_gpu(item) else [])]
        yield pytest.param(item, id=item.id, marks=marks)


@pytest.mark.parametrize("candidate", list(parameters(EVERY)))
def test_steps_with_the_cache_are_the_whole_pass_of_pytorch(
    candidate: Candidate, language_run: Path, learnt_llama: Path
) -> None:
    ids = np.array(IDS)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(learnt_llama)(torch.from_numpy(ids)).logits.numpy()
    bound = ROUNDED.get(candidate.id, TOLERANCES[candidate.precision]) * np.abs(expected).max()
    with opened(candidate, language_run) as runtime:
        assert runtime.info.device == ("cuda:0" if on_gpu(candidate) else "cpu")
        assert runtime.info.threads == 2
        whole = runtime.every(ids, np.ones_like(ids))
        continuing = runtime.begin(2, 6)
        steps = [continuing.prompt(ids[:, :3].tolist()), *(continuing.step(ids[:, at]) for at in (3, 4, 5))]
        continuing.rewind(3)
        again = [continuing.step(ids[:, at]) for at in (3, 4, 5)]
    assert whole.dtype == np.float32
    assert np.abs(whole - expected).max() < bound
    assert np.abs(np.stack(steps, axis=1) - expected[:, 2:]).max() < bound
    np.testing.assert_allclose(np.stack(again), np.stack(steps[1:]), atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "candidate",
    list(parameters(item for item in EVERY if item.runtime not in ALONE and "compile" not in item.options)),
)
def test_what_an_encoder_read_is_answered_as_pytorch_answers(
    candidate: Candidate, rewriting_run: Path, learnt_t5: Path
) -> None:
    """Texts of unequal length are read, and a token more is rewound and written again."""
    ids, mask = np.array(IDS), np.array([[1] * 6, [1] * 2 + [0] * 4])
    read, written = {"input_ids": ids * mask, "attention_mask": mask}, np.array([[0, 9, 13, 7], [0, 40, 12, 11]])
    model = AutoModelForSeq2SeqLM.from_pretrained(learnt_t5)
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in read.items()}
        expected = model(**given, decoder_input_ids=torch.from_numpy(written)).logits.numpy()
    bound = TOLERANCES[candidate.precision] * np.abs(expected).max()
    with opened(candidate, rewriting_run, "decoder.onnx") as runtime:
        whole = runtime.every(written, np.ones_like(written), read)
        continuing = runtime.begin(2, 4, read)
        steps = [continuing.prompt(written[:, :1].tolist()), *(continuing.step(written[:, at]) for at in (1, 2, 3))]
        continuing.rewind(2)
        again = [continuing.step(written[:, at]) for at in (2, 3)]
    assert np.abs(whole - expected).max() < bound
    assert np.abs(np.stack(steps, axis=1) - expected).max() < bound
    np.testing.assert_allclose(np.stack(again), np.stack(steps[2:]), atol=1e-5 * np.abs(expected).max())


SAID = {
    "torch-cpu/fp32": "linear",
    "ort-cpu/fp32": "GroupQueryAttention float",
    "ort-cpu/int4": "MatMulNBits float",
    "openvino-cpu/fp32": "RoPE",
    "openvino-cpu/int4": "ScaledDotProductAttention",
}


@pytest.mark.parametrize("name", SAID)
def test_an_engine_says_what_it_executes(name: str, language_run: Path) -> None:
    ids = np.array(IDS[:1])
    with opened(known_candidate(name, language=True), language_run) as runtime:
        executed = runtime.executes(ids, np.ones_like(ids))
    assert executed is not None
    assert any(kernel.startswith(SAID[name]) for kernel in executed.kernels), executed.kernels


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (Candidate("ort-tensorrt", Precision.FP32), "does not run language models yet"),
        (
            Candidate("ort-cpu", Precision.BF16),
            "bf16 runs on: torch-cpu, torch-cuda, ort-cuda",
        ),
        (Candidate("torch-cpu", Precision.FP32, ("autocast",)), "there is no option '+autocast'"),
    ],
)
def test_what_does_not_run_is_refused(candidate: Candidate, said: str, language_run: Path) -> None:
    with pytest.raises(UserError) as refused:
        opened(candidate, language_run)
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_a_step_behind_an_encoder_is_not_compiled(rewriting_run: Path) -> None:
    candidate = known_candidate("torch-cpu/fp32+compile", language=True)
    with pytest.raises(UserError, match="for decoders alone"), opened(candidate, rewriting_run, "decoder.onnx"):
        pass


def test_a_batch_that_fails_leaves_openvino_working(language_run: Path) -> None:
    """A mask of fewer positions than there are tokens."""
    with opened(known_candidate("openvino-cpu/fp32", language=True), language_run) as runtime:
        before = runtime.begin(2, 8).prompt(IDS)
        with pytest.raises(UserError, match="OpenVINO cannot run a batch of shape"):
            runtime.every(np.array(IDS), np.ones((2, 3), dtype=np.int64))
        np.testing.assert_array_equal(runtime.begin(2, 8).prompt(IDS), before)


def test_a_file_that_is_cut_off_is_told_in_llama_cpps_own_words(language_run: Path, tmp_path: Path) -> None:
    candidate = known_candidate("llama-cpp/fp32", language=True)
    available = probe(candidate.runtime)
    if not available.available:
        pytest.skip(str(available.reason))
    whole = RunFolder(language_run).variant(Precision.FP32) / GGUF
    (tmp_path / GGUF).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with (
        pytest.raises(UserError, match=r"model\.gguf: \S+") as refused,
        open_language(candidate, tmp_path / GGUF, 1),
    ):
        pass
    assert "--gguf" in refused.value.hint


def test_a_cache_that_does_not_fit_the_heads_is_refused(language_run: Path) -> None:
    with opened(SMALL_HEADS, language_run) as runtime, pytest.raises(UserError, match="in q8_0") as refused:
        runtime.begin(1, 8)
    assert "heads of whole blocks of 32" in refused.value.hint


def test_a_graph_that_is_no_decoder_is_refused(tiny_run: Path) -> None:
    graph = RunFolder(tiny_run).variant(Precision.FP32) / "model.onnx"
    with (
        pytest.raises(UserError, match="no decoder with a cache"),
        open_language(Candidate("ort-cpu", Precision.FP32), graph, 1),
    ):
        pass
