"""A decoder whose layers keep states: exported by the command, packed, asked, and refused where it cannot run."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from artifact.generate.decoder import Decoder
from artifact.generate.generator import Generator
from artifact.generate.writer import Wanted
from artifact.language import Cache, LanguageVariant
from artifact.pack_language import pack_language
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from artifact.tokenizer import read_config
from errors import UserError
from exporter.language.gguf_file import check_written
from runtimes.registry import Source, entry, known_candidate, open_language
from tests.artifact.conftest import run_predict
from tests.conftest import ending_tokenizer, taught, within
from tests.exporter.conftest import session

MADE = "fp32,int8-dynamic,int4"
PROMPTS = ("two hours", "the year is about", "what")
IDS = [[5, 9, 13, 7, 21, 6], [8, 6, 30, 11, 12, 40]]
STATE_BYTES = 3 * 2 * 4 * (128 * 3 + 128 * 16)
"""Three buffers of two layers with 128 channels, of each three inputs of the convolution and 16 numbers."""


@pytest.fixture(scope="module")
def learnt_mamba(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Mamba that learnt a few sentences."""
    tokenizer = ending_tokenizer(tiny_checkpoint)
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return taught(MambaForCausalLM(config), tokenizer, tmp_path_factory.mktemp("learnt") / "checkpoint", 60)


@pytest.fixture(scope="module")
def exported(learnt_mamba: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run exported by the command at every precision that can be made, and what was printed."""
    out = tmp_path_factory.mktemp("states") / "run"
    texts = ("--data", sentences, "--calibration", sentences)
    done = within("export", learnt_mamba, "--precisions", MADE, "--out", out, *texts)
    assert done.returncode in (0, 1), done.stderr  # rounded as it is for so small a model, a variant may fail
    return out, done.stdout


def variant(run: Path, precision: Precision) -> LanguageVariant:
    return msgspec.json.decode((run / "variants" / precision / "variant.json").read_bytes(), type=LanguageVariant)


def test_its_memory_does_not_grow_and_its_tokens_are_pytorchs(exported: tuple[Path, str]) -> None:
    run, printed = exported
    found = variant(run, Precision.FP32)
    assert found.passed, found.reasons
    assert found.continuation.equal == found.continuation.prompts
    assert found.cache == Cache(
        layers=0, heads=0, head_size=0, context_tokens=2048, bytes_per_token=0, state_bytes=STATE_BYTES
    )
    assert "cache: 0.06 MB however long a text is, of 2,048 tokens at most" in printed
    assert found.operators["Scan"] == 2
    for precision in (Precision.INT8_DYNAMIC, Precision.INT4):
        rounded = variant(run, precision)
        assert rounded.operators["MatMulNBits"] == 2 * 3 + 1  # but for what makes the times
        assert rounded.continuation.cached_error_fraction < 0.1


def test_16_bits_are_refused_when_the_others_are_made(
    exported: tuple[Path, str], learnt_mamba: Path, sentences: Path
) -> None:
    """Loops are not converted; what was made before is not made again, and stays."""
    run = exported[0]
    texts = ("--data", sentences, "--calibration", sentences)
    done = within("export", learnt_mamba, "--precisions", f"bf16,{MADE}", "--out", run, *texts)
    assert done.returncode == 1
    assert "bf16: the graph has branches or loops" in done.stderr
    assert variant(run, Precision.INT4).precision is Precision.INT4


def test_an_artifact_writes_what_pytorch_writes(exported: tuple[Path, str], learnt_mamba: Path, tmp_path: Path) -> None:
    """Prompts of unequal length at once; nothing is promised to engines that cannot keep states."""
    out = tmp_path / "artifact"
    pack_language(RunFolder(exported[0]), Precision.FP32, out, card=None, card_reason="not measured")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(learnt_mamba), AutoTokenizer.from_pretrained(learnt_mamba)
    wanted = []
    for prompt in PROMPTS:
        given = tokenizer(prompt, return_tensors="pt")["input_ids"]
        said = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False)
        wanted.append(tokenizer.decode(said[0, given.shape[1] :], skip_special_tokens=True))
    assert [text.text for text in Generator.open(out).complete(PROMPTS, Wanted(most=12))] == wanted
    assert run_predict(out, PROMPTS[0], "--max-new-tokens", "12").stdout.decode() == f"{PROMPTS[0]}{wanted[0]}\n"
    card = (out / "README.md").read_text()
    assert "0.0584 MB however long it is" in card
    assert "genai" not in card
    assert not (out / "genai_config.json").exists()


@pytest.mark.parametrize(("name", "bound"), [("torch-cpu/fp32", 1e-4), ("ort-cpu/fp32", 1e-4), ("ort-cpu/int4", 0.3)])
def test_steps_are_the_whole_pass_and_can_be_taken_back(
    name: str, bound: float, exported: tuple[Path, str], learnt_mamba: Path
) -> None:
    ids = np.array(IDS)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(learnt_mamba)(torch.from_numpy(ids)).logits.numpy()
    candidate, run = known_candidate(name, language=True), RunFolder(exported[0])
    is_checkpoint = entry(candidate.runtime).source is Source.CHECKPOINT
    model = learnt_mamba if is_checkpoint else run.variant(candidate.precision) / "model.onnx"
    with open_language(candidate, model, 1) as runtime:
        whole = runtime.every(ids, np.ones_like(ids))
        continuing = runtime.begin(2, 6)
        steps = [continuing.prompt(ids[:, :3].tolist()), *(continuing.step(ids[:, at]) for at in (3, 4, 5))]
        continuing.rewind(3)
        again = [continuing.step(ids[:, at]) for at in (3, 4, 5)]
        anew = continuing.prompt(ids[:, :3].tolist())
    scale = np.abs(expected).max()
    assert np.abs(whole - expected).max() < bound * scale
    assert np.abs(np.stack(steps, axis=1) - expected[:, 2:]).max() < bound * scale
    np.testing.assert_allclose(np.stack(again), np.stack(steps[1:]), atol=1e-5 * scale)
    np.testing.assert_allclose(anew, steps[0], atol=1e-5 * scale)


def test_states_go_back_to_the_prompt_alone(exported: tuple[Path, str]) -> None:
    decoding = Decoder(session(RunFolder(exported[0]).variant(Precision.FP32) / "model.onnx"), 16).begin(1, 8)
    decoding.prompt([[5, 9, 13]])
    with pytest.raises(ValueError, match="go back to the prompt's 3 positions, not to 2"):
        decoding.rewind(2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openvino-cpu/fp32", "whose layers all keep keys and values"),
        ("ort-genai/fp32", "whose layers all keep keys and values"),
        ("torch-cpu/fp32+compile", "for none that look through a window or keep states"),
    ],
)
def test_engines_that_keep_no_states_say_so(
    name: str, said: str, exported: tuple[Path, str], learnt_mamba: Path
) -> None:
    candidate = known_candidate(name, language=True)
    graph = RunFolder(exported[0]).variant(Precision.FP32) / "model.onnx"
    model = learnt_mamba if entry(candidate.runtime).source is Source.CHECKPOINT else graph
    with pytest.raises(UserError, match=said), open_language(candidate, model, 1):
        pass


def test_llama_cpp_is_written_none(learnt_mamba: Path) -> None:
    with pytest.raises(UserError, match=r"models of type mamba are not written for llama\.cpp"):
        check_written(read_config(learnt_mamba, "config.json"))
