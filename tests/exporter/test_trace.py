import csv
import getpass
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from errors import UserError
from exporter import trace as traced
from exporter.trace import save_graph, trace
from models.checkpoint import load_model
from tests.exporter.conftest import close, onnx_logits, tokenize, torch_logits

REFUSED = Exception  # onnxruntime's own errors derive from nothing else


def _graph(run: Path) -> Path:
    return run / "variants" / "fp32" / "model.onnx"


def _random(rows: int, length: int) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    draw = np.random.default_rng(rows * 100 + length)
    return {
        "input_ids": draw.integers(5, 100, (rows, length)),
        "token_type_ids": draw.integers(0, 2, (rows, length)),
        "attention_mask": np.ones((rows, length), dtype=np.int64),
    }


def _texts(reviews: Path, number: int) -> list[str]:
    with reviews.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)][:number]


def test_every_input_has_the_two_named_axes(tiny_run: Path) -> None:
    model = onnx.load(_graph(tiny_run))
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert axes == {
        "input_ids": ["batch", "sequence"],
        "token_type_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "logits": ["batch", 2],
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (2, 64), (2, 8)])
def test_every_shape_gives_pytorchs_logits(tiny_checkpoint: Path, tiny_run: Path, shape: tuple[int, int]) -> None:
    batch = _random(*shape)
    assert close(onnx_logits(_graph(tiny_run), batch), torch_logits(tiny_checkpoint, batch))


def test_onnxs_own_reference_gives_pytorchs_logits(tiny_checkpoint: Path, tiny_run: Path) -> None:
    batch = _random(2, 6)
    batch["attention_mask"][1, 4:] = 0
    outputs = np.asarray(ReferenceEvaluator(str(_graph(tiny_run))).run(["logits"], batch))
    assert close(outputs[0], torch_logits(tiny_checkpoint, batch))


def test_real_texts_with_padding_give_pytorchs_logits(tiny_checkpoint: Path, tiny_run: Path, reviews: Path) -> None:
    batch = tokenize(tiny_checkpoint, _texts(reviews, 40))
    assert (batch["attention_mask"] == 0).any()
    assert close(onnx_logits(_graph(tiny_run), batch), torch_logits(tiny_checkpoint, batch))


def test_padding_changes_nothing(tiny_checkpoint: Path, tiny_run: Path, reviews: Path) -> None:
    texts = _texts(reviews, 12)
    together = onnx_logits(_graph(tiny_run), tokenize(tiny_checkpoint, texts))
    alone = np.concatenate([onnx_logits(_graph(tiny_run), tokenize(tiny_checkpoint, [text])) for text in texts])
    assert close(together, alone)


def test_rows_may_be_permuted(tiny_checkpoint: Path, tiny_run: Path, reviews: Path) -> None:
    batch = tokenize(tiny_checkpoint, _texts(reviews, 12))
    order = np.random.default_rng(0).permutation(12)
    permuted = onnx_logits(_graph(tiny_run), {name: array[order] for name, array in batch.items()})
    assert close(permuted, onnx_logits(_graph(tiny_run), batch)[order])


def test_a_fully_padded_row_gives_numbers_and_leaves_the_others_alone(tiny_checkpoint: Path, tiny_run: Path) -> None:
    batch = _random(3, 6)
    expected = torch_logits(tiny_checkpoint, batch)
    batch["attention_mask"][1] = 0
    logits = onnx_logits(_graph(tiny_run), batch)
    assert np.isfinite(logits).all()
    assert close(logits[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids"])
@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (2, 4)])
def test_an_input_smaller_than_the_ids_is_refused(tiny_run: Path, name: str, shape: tuple[int, int]) -> None:
    batch = _random(2, 5) | {name: np.ones(shape, dtype=np.int64)}
    with pytest.raises(REFUSED, match="node"):
        onnx_logits(_graph(tiny_run), batch)


def test_a_text_longer_than_the_models_positions_is_refused(tiny_run: Path) -> None:
    with pytest.raises(REFUSED, match="64 by 65"):
        onnx_logits(_graph(tiny_run), _random(1, 65))


def test_no_byte_tells_where_or_by_whom_it_was_made(tiny_checkpoint: Path, tiny_run: Path) -> None:
    data = _graph(tiny_run).read_bytes()
    secrets = [str(Path.cwd()), str(tiny_checkpoint), str(tiny_run), str(Path.home()), "site-packages", "/tmp/"]
    secrets += ["stack_trace", "pkg.torch", "exporter/", socket.gethostname(), f"/{getpass.getuser()}/"]
    # in random weights two letters meet by chance
    assert [secret for secret in secrets if len(secret) > 4 and secret.encode() in data] == []
    model = onnx.load_from_string(data)
    assert not model.metadata_props
    parts = (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info)
    assert not any(part.metadata_props or part.doc_string for part in (*parts, *model.graph.initializer))


@pytest.fixture(scope="module")
def retraced(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> onnx_ir.Model:
    """The same checkpoint in another place, traced once more."""
    return trace(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("moved") / "elsewhere"))


@pytest.mark.slow
def test_two_traces_are_the_same_bytes(retraced: onnx_ir.Model, tiny_run: Path, tmp_path: Path) -> None:
    save_graph(retraced, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == _graph(tiny_run).read_bytes()


def test_only_opsets_that_nodes_use_are_imported(tiny_run: Path) -> None:
    model = onnx.load(_graph(tiny_run))
    assert {item.domain for item in model.opset_import} == {node.domain for node in model.graph.node} == {""}
    assert not model.functions


@pytest.mark.slow
def test_model_and_sample_are_left_as_they_were(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sample = load_model(tiny_checkpoint), traced._sample(("input_ids", "attention_mask"))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = {name: value.clone() for name, value in sample.items()}
    forwards = {name: module.forward for name, module in model.named_modules()}
    attention = model.config._attn_implementation
    monkeypatch.setattr(traced, "load_model", lambda folder: model)
    monkeypatch.setattr(traced, "_sample", lambda names: sample)
    trace(tiny_checkpoint)
    assert not any(module.training for module in model.modules())
    assert {name: module.forward for name, module in model.named_modules()} == forwards
    assert model.config._attn_implementation == attention
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert list(sample) == list(inputs)
    assert all(torch.equal(value, inputs[name]) for name, value in sample.items())


def test_an_input_that_no_tokenizer_gives_is_named(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "model_input_names", lambda folder: ("input_ids", "bbox"))
    with pytest.raises(UserError, match="inputs that no text tokenizer gives: bbox"):
        trace(tiny_checkpoint)


def test_a_model_that_cannot_be_traced_is_named(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("a loop over data\nand more")  # as torch does for what it cannot trace

    monkeypatch.setattr("exporter.trace.OnnxExporter.export_program", fail)
    with pytest.raises(UserError, match=r"^BertForSequenceClassification cannot be traced: a loop over data$"):
        trace(tiny_checkpoint)


def test_weights_beside_the_graph_load_from_anywhere(
    retraced: onnx_ir.Model, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_graph(retraced, tmp_path / "first" / "model.onnx", external_data_bytes=1000)
    folder = (tmp_path / "first").rename(tmp_path / "moved")
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.onnx_data"]
    expected = onnx_logits(_graph(tiny_run), _random(2, 5))
    for cwd, path in ((tmp_path, folder / "model.onnx"), (folder, Path("model.onnx"))):
        monkeypatch.chdir(cwd)
        assert (onnx_logits(path, _random(2, 5)) == expected).all()


def test_a_failed_write_leaves_the_earlier_graph(
    retraced: onnx_ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")

    def full(graph: object, temporary: Path, **_: object) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("onnx_ir.save", full)
    with pytest.raises(UserError, match=r"cannot write .*model\.onnx: No space left on device"):
        save_graph(retraced, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"earlier"
