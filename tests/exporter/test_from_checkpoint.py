"""What of a checkpoint is refused, and what a subject's inputs and axes are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, BertModel, RobertaModel

from artifact.pooling import Pooling, PoolingMode
from artifact.task import Task
from artifact.tokenizer import read_limits
from errors import UserError
from exporter.from_checkpoint import checkpoint_subject
from exporter.subject import Subject
from exporter.trace import trace
from models.checkpoint import open_checkpoint
from tests.exporter.architectures import build, write_letters

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
BERT = {**SIZES, "vocab_size": 99, "max_position_embeddings": 64}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64, "pad_token_id": 0}
BART_PART = {"layers": 1, "attention_heads": 4, "ffn_dim": 64}
BART = {
    "vocab_size": 99,
    "d_model": 32,
    "max_position_embeddings": 64,
    "eos_token_id": 3,
    "bos_token_id": 2,
    "pad_token_id": 0,
    **{f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in BART_PART.items()},
}


def saved(folder: Path, kind: str, config: dict[str, Any], *, most: int = 64, pad: int = 0) -> Path:
    """A checkpoint of a class that takes texts."""
    build(kind, config).save_pretrained(folder)
    write_letters(folder, pad=pad, most=most)
    return folder


def subject(folder: Path, **options: Any) -> Subject:
    return checkpoint_subject(open_checkpoint(folder, **options))


def batch(rows: int, length: int) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    ids = np.random.default_rng(rows + length).integers(6, 99, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def answer(model: Any, inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The first output of a model as transformers loads it."""
    with torch.inference_mode():
        return np.asarray(model.eval()(**{name: torch.tensor(array) for name, array in inputs.items()})[0].numpy())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bert") / "checkpoint", "BertForSequenceClassification", BERT)


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return shutil.copytree(bert, tmp_path / "copy")


# What is refused


@pytest.mark.parametrize(
    ("name", "value"), [("classifier.weight", float("nan")), ("bert.embeddings.LayerNorm.bias", float("-inf"))]
)
def test_a_weight_that_is_not_finite_is_named(copy: Path, name: str, value: float) -> None:
    weights = load_file(copy / "model.safetensors")
    weights[name].view(-1)[:3] = value
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"'{name}' has 3 values"):
        subject(copy)


def test_token_ids_that_the_model_has_no_row_for_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "BertForSequenceClassification", {**BERT, "vocab_size": 80})
    with pytest.raises(UserError, match="ids up to 88, the model has 80 rows") as caught:
        subject(folder)
    assert "resize_token_embeddings" in caught.value.hint


def test_a_generative_model_is_told_what_can_be_exported_instead(tmp_path: Path) -> None:
    folder = saved(tmp_path, "GPT2LMHeadModel", GPT2)
    with pytest.raises(UserError, match="GPT2LMHeadModel, which generates text") as caught:
        open_checkpoint(folder)
    assert "ForSequenceClassification" in caught.value.hint


def test_an_architecture_that_transformers_lacks_is_named(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"architectures": ["BertForFortuneTelling"]}))
    with pytest.raises(UserError, match="'BertForFortuneTelling'"):
        open_checkpoint(copy)


def test_a_tokenizer_without_a_fast_version_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        open_checkpoint(copy)


def test_a_model_that_cannot_answer_its_own_inputs_is_refused(tmp_path: Path) -> None:
    """BART's classifier needs an end token in every text, which random ids lack."""
    folder = saved(tmp_path, "BartForSequenceClassification", BART)
    with pytest.raises(UserError, match="BartForSequenceClassification does not take"):
        subject(folder)


# Pickles


@pytest.fixture
def pickled(copy: Path) -> Path:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    return copy


def test_a_pickle_is_refused(pickled: Path) -> None:
    with pytest.raises(UserError, match=r"only the pickle pytorch_model\.bin") as caught:
        open_checkpoint(pickled)
    assert "--allow-pickle" in caught.value.hint


def test_a_pickle_is_loaded_when_it_is_allowed(pickled: Path, bert: Path) -> None:
    inputs = batch(2, 5)
    found = subject(pickled, allow_pickle=True).answer(inputs)["logits"]
    expected = answer(BertForSequenceClassification.from_pretrained(bert), inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_allowing_pickles_changes_nothing_where_there_are_none(bert: Path) -> None:
    assert not open_checkpoint(bert, allow_pickle=True).pickled


# Lengths and sizes


def test_robertas_positions_begin_after_its_padding(tmp_path: Path) -> None:
    folder = saved(tmp_path, "RobertaModel", {**BERT, "max_position_embeddings": 66}, most=512, pad=1)
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 1
    assert read_limits(folder).max_length_tokens == 64
    (sequence,) = subject(folder).axes[1:]
    assert (sequence.name, sequence.most, sequence.trials[-1]) == ("sequence", 64, 64)
    model = RobertaModel.from_pretrained(folder)
    assert answer(model, batch(2, 64)).shape == (2, 64, 32)
    with pytest.raises((IndexError, RuntimeError), match="66"):
        answer(model, batch(2, 65))


def test_text_inputs_share_their_axes(bert: Path) -> None:
    found = subject(bert)
    assert found.task is Task.TEXT_CLASSIFICATION
    assert {item.name: [axis.name for axis in item.axes.values()] for item in found.inputs} == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
    }


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        ("ViTForImageClassification", {**SIZES, "image_size": 32, "patch_size": 8}, ["batch"]),
        (
            "ResNetForImageClassification",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
            ["batch", "height", "width"],
        ),
    ],
    ids=["fixed", "any"],
)
@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": {"height": 32, "width": 32}}, 32),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, 32),
        ({"size": 32}, 32),
    ],
    ids=["size", "crop", "number"],
)
def test_an_image_has_the_processors_size_and_varies_only_where_the_model_lets_it(
    tmp_path: Path, kind: str, config: dict[str, Any], names: list[str], processor: dict[str, Any], size: int
) -> None:
    build(kind, config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = subject(tmp_path)
    assert [axis.name for axis in found.axes] == names
    (pixels,) = found.inputs
    sizes = [axis if isinstance(axis, int) else axis.trials[0] for axis in pixels.shape]
    assert sizes == [1, 3, size, size]


def test_a_models_own_image_size_holds_without_a_processor(tmp_path: Path) -> None:
    build("ViTForImageClassification", {**SIZES, "image_size": 48, "patch_size": 8}).save_pretrained(tmp_path)
    (pixels,) = subject(tmp_path).inputs
    assert pixels.shape[1:] == (3, 48, 48)


# The task


def test_a_named_task_takes_the_class_for_it(tmp_path: Path) -> None:
    """A masked language model holds an encoder, whose features can be had."""
    folder = saved(tmp_path, "BertForMaskedLM", BERT)
    assert open_checkpoint(folder).task is Task.FILL_MASK
    found, inputs = subject(folder, task=Task.FEATURE_EXTRACTION), batch(2, 5)
    assert found.outputs == ("last_hidden_state",)
    expected = answer(BertModel.from_pretrained(folder), inputs)
    np.testing.assert_allclose(found.answer(inputs)["last_hidden_state"], expected, rtol=1e-5, atol=1e-6)


def test_a_task_that_the_weights_were_not_trained_for_is_refused(bert: Path) -> None:
    with pytest.raises(UserError, match=r"lacks the weights qa_outputs\.bias"):
        subject(bert, task=Task.QUESTION_ANSWERING)


# Tracing


def modes(module: torch.nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


def traces(module: torch.nn.Module) -> dict[str, Any]:
    """What a tracer may leave behind on any part of a module."""
    return {
        name: (part.forward, set(vars(part)) - {"forward"}, len(part._forward_hooks), len(part._forward_pre_hooks))
        for name, part in module.named_modules()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("BertForSequenceClassification", lambda folder: checkpoint_subject(open_checkpoint(folder))),
        ("BertModel", lambda folder: checkpoint_subject(open_checkpoint(folder), Pooling(PoolingMode.MEAN))),
    ],
    ids=["whole", "pooled"],
)
def test_tracing_leaves_the_module_as_it_was(tmp_path: Path, kind: str, make: Callable[[Path], Subject]) -> None:
    found = make(saved(tmp_path, kind, BERT))
    inputs = batch(2, 5)
    weights = {name: value.clone() for name, value in found.module.state_dict().items()}
    attention, answers, before = found.module.config._attn_implementation, found.answer(inputs), traces(found.module)
    assert not any(modes(found.module).values())
    trace(found)
    assert not any(modes(found.module).values())
    assert traces(found.module) == before
    assert found.module.config._attn_implementation == attention
    after = found.module.state_dict()
    assert set(after) == set(weights)
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    for name, array in found.answer(inputs).items():
        assert np.array_equal(array, answers[name])
