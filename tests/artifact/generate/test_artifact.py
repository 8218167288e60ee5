"""A packed language model, used as a stranger would use it, beside transformers."""

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from artifact.bundle import bundle
from artifact.generate.command import Asked, converse, write_file, written_of
from artifact.generate.decoder import Decoding
from artifact.generate.generator import Generator
from artifact.generate.golden import GoldenTexts, read_golden_texts
from artifact.generate.writer import Wanted
from artifact.layout import Extras, Layout
from artifact.pack_language import ENTRY, end_ids, pack_language
from artifact.precision import Precision
from artifact.predict.rows import ItemColumns
from artifact.records import read_json
from artifact.run_folder import RunFolder
from errors import GateFailed, UserError
from exporter.language.export import export_language
from exporter.request import Request
from tests.artifact.conftest import edit_json, reseal, run_predict
from tests.artifact.environments import Environments, environments
from tests.conftest import SENTENCES, Steelyard, copied

__all__ = ["environments"]

TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"
PROMPTS = ("two hours", "the year is", "what a warm")


@pytest.fixture(scope="module")
def written(language_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int4 decoder as an artifact; copy it to write into it."""
    out = tmp_path_factory.mktemp("packed") / "artifact"
    pack_language(RunFolder(language_run), Precision.INT4, out, card=None, card_reason="not measured")
    return out


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "artifact"))


@pytest.fixture(scope="module")
def chatting(language_run: Path, learnt_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 decoder of the same checkpoint with a chat template."""
    out = tmp_path_factory.mktemp("chatting") / "artifact"
    pack_language(RunFolder(language_run), Precision.FP32, out, card=None, card_reason="not measured")
    (out / "chat_template.jinja").write_text(TEMPLATE)
    reseal(out)
    return out


def continued(checkpoint: Path, prompt: str, most: int) -> str:
    """What transformers' own greedy `generate` writes behind a prompt."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    given = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        found = model.generate(**{name: given[name] for name in ("input_ids", "attention_mask")}, max_new_tokens=most)
    return str(tokenizer.decode(found[0, given["input_ids"].shape[1] :], skip_special_tokens=True))


def test_the_command_writes_what_pytorch_writes(language_run: Path, learnt_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    pack_language(RunFolder(language_run), Precision.FP32, out, card=None, card_reason="not measured")
    for prompt in PROMPTS:
        done = run_predict(out, prompt, "--max-new-tokens", "6")
        assert done.stdout.decode() == f"{prompt}{continued(learnt_llama, prompt, 6)}\n"
    lines = run_predict(out, "--json", "--max-new-tokens", "6", stdin="\n".join(PROMPTS).encode()).stdout.splitlines()
    assert [json.loads(line)["written"] for line in lines] == [continued(learnt_llama, text, 6) for text in PROMPTS]
    assert json.loads(lines[0])["ending"] in ("end", "length")


def test_an_fp16_artifact_writes_the_same(language_run: Path, learnt_llama: Path, tmp_path: Path) -> None:
    pack_language(RunFolder(language_run), Precision.FP16, tmp_path / "half", card=None, card_reason="not measured")
    done = run_predict(tmp_path / "half", PROMPTS[0], "--max-new-tokens", "6")
    assert done.stdout.decode() == f"{PROMPTS[0]}{continued(learnt_llama, PROMPTS[0], 6)}\n"
    run_predict(tmp_path / "half", "--selftest")
    with pytest.raises(UserError, match="onnxruntime cannot run"):
        pack_language(RunFolder(language_run), Precision.BF16, tmp_path / "bf16", card=None, card_reason="")


def test_it_needs_nothing_but_its_requirements(written: Path, environments: Environments) -> None:
    python = environments.python(written / "requirements.txt")
    check = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'transformers', 'msgspec'))))"
    subprocess.run([python, "-I", "-c", check], check=True)
    for words in (("--selftest",), ("two hours", "--max-new-tokens", "4", "--temperature", "0.8", "--top-p", "0.9")):
        done = subprocess.run(
            [python, "-I", written / "predict.py", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(("selftest passed", "two hours"))


def test_the_program_is_ours_and_the_same_each_time(written: Path, language_run: Path, tmp_path: Path) -> None:
    assert (written / "predict.py").read_text() == bundle(ENTRY)
    again = tmp_path / "artifact"
    pack_language(RunFolder(language_run), Precision.INT4, again, card=None, card_reason="not measured")
    ours, theirs = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (written, again)
    )
    assert ours == theirs


def test_verify_confirms_it_and_finds_a_flipped_bit(copy: Path, steelyard: Steelyard) -> None:
    done = steelyard("verify", copy)
    assert done.returncode == 0, done.stderr
    assert "golden examples agree" in done.stdout
    for name in ("onnx/model_q4.onnx", "tokenizer.json", "golden.json"):
        path = copy / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        done = steelyard("verify", copy)
        assert (done.returncode, "was changed or damaged" in done.stderr) == (1, True)
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_another_models_logits_are_found_when_the_hashes_fit(copy: Path, language_run: Path) -> None:
    golden = json.loads((copy / "golden.json").read_text())
    golden["examples"][0]["logits"]["values"][0] += 2 * golden["tolerance"] + 1
    (copy / "golden.json").write_text(json.dumps(golden))
    reseal(copy)
    (problem,) = Generator.open(copy).selftest()
    assert "a logit is off by" in problem


def test_golden_logits_are_the_graphs_own_and_its_distance_from_pytorch_is_told(
    written: Path, language_run: Path
) -> None:
    ours, theirs = read_golden_texts(written), read_json(RunFolder(language_run).golden, GoldenTexts)
    generator = Generator.open(written)
    assert ours.tolerance is not None
    assert ours.reference_error is not None
    assert generator.golden_errors(ours)[1] == 0
    assert generator.golden_errors(theirs)[1] == pytest.approx(ours.reference_error)
    assert ours.tolerance < ours.reference_error  # one as wide as that would let much go by
    assert [item.ids for item in ours.examples] == [item.ids for item in theirs.examples]


def test_a_layer_whose_scales_grew_is_found_when_the_hashes_fit(copy: Path) -> None:
    path = copy / "onnx" / "model_q4.onnx"
    graph = onnx.load(path)
    scales = next(item for item in graph.graph.initializer if item.name.endswith("self_attn.joint.scale"))
    scales.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scales) * np.float32(1.3), scales.name))
    onnx.save(graph, path)
    reseal(copy)
    (problem,) = Generator.open(copy).selftest()
    assert "a logit is off by" in problem


@pytest.mark.exhaustive
def test_a_decoder_whose_configuration_has_other_names_is_packed(learnt_llama: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(learnt_llama)
    ids = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    request = Request(tmp_path / "gpt2", tmp_path / "run", (Precision.FP32,), is_language=True)
    (exported,) = export_language(request)
    assert exported.variant.passed, exported.variant.reasons
    out = tmp_path / "artifact"
    pack_language(RunFolder(tmp_path / "run"), Precision.FP32, out, card=None, card_reason="not measured")
    told = json.loads((out / "genai_config.json").read_text())["model"]
    assert (told["decoder"]["hidden_size"], told["decoder"]["num_attention_heads"]) == (32, 4)
    assert told["vocab_size"] == len(tokenizer)


@pytest.mark.parametrize("is_chat", [False, True])
def test_ctrl_c_ends_all_texts_of_a_file(chatting: Path, monkeypatch: pytest.MonkeyPatch, *, is_chat: bool) -> None:
    generator, begun = Generator.open(chatting), list[int]()

    def pressed(self: Decoding, rows: Any) -> Any:
        begun.append(len(rows))
        raise KeyboardInterrupt

    monkeypatch.setattr(Decoding, "prompt", pressed)
    with pytest.raises(KeyboardInterrupt):
        written_of(generator, PROMPTS, Asked(wanted=Wanted(6), is_chat=is_chat))
    assert len(begun) == 1  # and no other text is begun


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 99}, "has schema_version 99"),
        ({"context_tokens": 1}, "context_tokens is 1"),
        ({"model_file": "../model.onnx"}, "not onnx/"),
        ({"task": "text-classification", "schema_version": 1}, "schema_version 1; this reads 2"),
        ({"end_ids": "all"}, "end_ids"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(
    copy: Path, steelyard: Steelyard, changes: dict[str, Any], said: str
) -> None:
    edit_json(copy / "steelyard.json", **changes)
    done = steelyard("predict", copy, "two hours")
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_what_onnxruntime_genai_is_told_fits_the_graph(written: Path, learnt_llama: Path) -> None:
    import onnxruntime

    told = json.loads((written / "genai_config.json").read_text())["model"]
    session = onnxruntime.InferenceSession(written / told["decoder"]["filename"])
    inputs = {item.name: item.shape for item in session.get_inputs()}
    layers = range(told["decoder"]["num_hidden_layers"])
    named = [told["decoder"]["inputs"][f"past_{part}_names"] % layer for layer in layers for part in ("key", "value")]
    assert set(inputs) == {"input_ids", "attention_mask", *named}
    shapes = {item.name: item.shape for item in session.get_outputs()}
    assert shapes["logits"][1] == 1  # or it makes room for a row for each token of the prompt
    assert inputs[named[0]][1] == told["decoder"]["num_key_value_heads"]
    assert inputs[named[0]][3] == told["decoder"]["head_size"]
    assert told["eos_token_id"] == list(end_ids(learnt_llama))
    assert told["context_length"] == 96


def test_a_file_is_gone_on_with_after_a_kill(written: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "prompts.csv", tmp_path / "out.jsonl"
    with data.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        rows.writerows([number, PROMPTS[number % 3]] for number in range(10))
    generator, asked = Generator.open(written), Asked(wanted=Wanted(4))

    def stop(rows: int) -> None:
        if rows == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(generator, data, out, asked, ItemColumns(), ("id",), stop)
    begun: list[int] = []
    assert write_file(generator, data, out, asked, ItemColumns(), ("id",), begun.append) == 10
    assert begun[0] == 4
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in found] == [str(number) for number in range(10)]
    assert found[0]["written"] == found[9]["written"] == generator.complete([PROMPTS[0]], Wanted(4))[0].text


def test_a_chat_is_answered_with_all_that_was_said(chatting: Path) -> None:
    generator = Generator.open(chatting)
    said, shown = iter(["two hours", "about", None]), list[str]()
    converse(generator, Asked(wanted=Wanted(3)), lambda: next(said), shown.append)
    first, second = "".join(shown).splitlines()
    assert first == generator.chat([{"role": "user", "content": "two hours"}], Wanted(3)).text
    whole = [
        {"role": "user", "content": "two hours"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "about"},
    ]
    assert second == "".join(generator.stream_chat(whole, Wanted(3)))
    assert (
        run_predict(chatting, "--chat", "two hours", "--max-new-tokens", "3").stdout.decode().strip() == first.strip()
    )


def test_what_cannot_be_is_said(written: Path, steelyard: Steelyard, packed: Path) -> None:
    for words, said in (
        (("two hours", "--chat"), "has no chat template"),
        ((" ".join([SENTENCES[0]] * 30),), "this model's context is 96"),
        (("two hours", "--temperature", "-1"), "--temperature is -1.0"),
        (("two hours", "--stop", ""), "--stop is empty"),
        (("two hours", "--threshold", "0.9"), "--threshold is not for an artifact that writes text"),
        (("two hours", "--system", "be brief"), "--system is given, and no --chat"),
    ):
        done = steelyard("predict", written, *words)
        assert (done.returncode, said in done.stderr) == (2, True), (words, done.stderr)
        assert "Traceback" not in done.stderr
    done = steelyard("predict", packed, "a film", "--chat")
    assert (done.returncode, "--chat is for an artifact that writes text" in done.stderr) == (2, True)


def test_what_cannot_be_packed_is_said(language_run: Path, tmp_path: Path) -> None:
    run = RunFolder(language_run)
    with pytest.raises(UserError, match="--layout triton is for models that answer in one pass"):
        pack_language(
            run, Precision.INT4, tmp_path / "a", card=None, card_reason="", extras=Extras(layout=Layout.TRITON)
        )
    with pytest.raises(UserError, match="has no int8-static variant"):
        pack_language(run, Precision.INT8_STATIC, tmp_path / "a", card=None, card_reason="")
    other = RunFolder(copied(language_run, tmp_path / "run"))
    edit_json(other.variant(Precision.INT4) / "variant.json", reasons=["it was made to fail"])
    with pytest.raises(GateFailed, match="it was made to fail"):
        pack_language(other, Precision.INT4, tmp_path / "a", card=None, card_reason="")
    (other.variant(Precision.INT8_DYNAMIC) / "model.onnx").write_bytes(b"cut short")
    with pytest.raises(UserError, match="is not the file that was exported"):
        pack_language(other, Precision.INT8_DYNAMIC, tmp_path / "a", card=None, card_reason="")
    assert not (tmp_path / "a").exists()
