import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifact.identity import checkpoint_sha256
from artifact.task import Activation, Task
from errors import UserError
from models.checkpoint import load_model, load_tokenizer, model_input_names, open_checkpoint, quiet, text_limits

Change = Callable[[Path], object]


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def _remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:50])


def _configure(**fields: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def _pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _headless(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_is_described_from_its_files(copy: Path) -> None:
    checkpoint = open_checkpoint(copy)
    assert checkpoint.task is Task.TEXT_CLASSIFICATION
    assert checkpoint.labels == ("negative", "positive")
    assert checkpoint.activation is Activation.SOFTMAX
    assert text_limits(checkpoint).max_length_tokens == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "does not exist or is not a folder"),
        (_remove("config.json"), "has no config.json"),
        (_cut("config.json"), "config.json cannot be read"),
        (_remove("model.safetensors"), "has no safetensors weights"),
        (_pickle, "has no safetensors weights, only the pickle pytorch_model.bin"),
        (_remove("tokenizer.json"), "has no tokenizer.json"),
        (_configure(architectures=["BertLMHeadModel"]), "holds a BertLMHeadModel, which generates text"),
        (_configure(architectures=["GPT2LMHeadModel"], model_type="gpt2"), "holds a GPT2LMHeadModel"),
        (_configure(architectures=["NoSuchModel"]), "names the architecture 'NoSuchModel'"),
        (_configure(architectures=None), "names the architecture None"),
    ],
)
def test_what_a_checkpoint_lacks_is_named(copy: Path, change: Change, message: str) -> None:
    change(copy)
    with pytest.raises(UserError) as raised:
        open_checkpoint(copy)
    assert message in raised.value.message
    assert str(copy) in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_headless, "lacks the weights classifier.bias, classifier.weight"),
        (_cut("model.safetensors"), "cannot be loaded"),
        (_configure(hidden_size=64), "cannot be loaded"),
        (_configure(model_type="nope"), "cannot be loaded"),
        (_pickle, "cannot be loaded"),
    ],
)
def test_weights_that_do_not_fit_are_refused(copy: Path, change: Change, message: str) -> None:
    change(copy)
    with pytest.raises(UserError) as raised:
        load_model(copy)
    assert message in raised.value.message


@pytest.mark.parametrize("change", [_remove("tokenizer.json"), _cut("tokenizer.json")])
def test_a_tokenizer_that_cannot_be_read_is_refused(copy: Path, change: Change) -> None:
    change(copy)
    with pytest.raises(UserError, match="has no usable tokenizer"):
        load_tokenizer(copy)


def test_the_model_is_fp32_in_eval_mode_with_the_saved_weights(copy: Path) -> None:
    model = load_model(copy)
    saved = load_file(copy / "model.safetensors")
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.equal(value, saved[name]) for name, value in model.named_parameters())


def test_half_precision_weights_are_loaded_as_fp32(copy: Path) -> None:
    halves = {name: value.half() for name, value in load_file(copy / "model.safetensors").items()}
    save_file(halves, copy / "model.safetensors", metadata={"format": "pt"})
    assert {parameter.dtype for parameter in load_model(copy).parameters()} == {torch.float32}


def test_the_tokenizer_gives_the_inputs(copy: Path) -> None:
    assert model_input_names(copy) == ("input_ids", "token_type_ids", "attention_mask")


def test_the_hash_is_that_of_weights_configuration_and_tokenizer(copy: Path) -> None:
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    lines = [f"{name} {hashlib.sha256((copy / name).read_bytes()).hexdigest()}" for name in names]
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    (copy / "README.md").write_text("not part of the model")
    assert checkpoint_sha256(copy) == expected == open_checkpoint(copy).sha256


def test_quiet_gives_transformers_its_voice_back(copy: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet():
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (40, False)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
