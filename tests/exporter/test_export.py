"""The whole export: what lies in a run afterwards, what is reused, and that a broken graph is caught and recorded."""

import csv
import getpass
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from transformers import AutoTokenizer

from artifact.cpu import saturates
from artifact.examples import read_examples, read_texts
from artifact.pack import pack
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from artifact.variant import Recipe
from errors import UserError
from exporter import request
from exporter.derive import DERIVATIONS, Choice, Derivation, Material
from exporter.export import Exported, export
from exporter.layers import LayerKind
from exporter.options import Target
from exporter.request import Request, Source
from exporter.subject import Subject
from exporter.trace import trace
from measure.source import find_models
from measure.statistics import accuracy_difference
from models.checkpoint import open_checkpoint
from models.rows import Columns
from runtimes.base import Candidate
from tests.artifact.conftest import run_predict
from tests.conftest import within
from tests.exporter.conftest import close, onnx_logits, session, tokenize, torch_logits

FP32, FP16, INT8 = Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC
BOTH = (FP32, INT8)
SIX = ("fp32", "fp16", "bf16", "int8-dynamic", "int8-static", "int4")
Break = Callable[[onnx.ModelProto], None]
Stand = Callable[..., None]


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """The exported run, to be damaged."""
    out = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (out / "checkpoint.json").unlink()
    return out


@pytest.fixture
def traced(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Let the tiny run's graph, spoilt if need be, stand in for a trace, which takes seconds."""

    def stand_in(spoil: Break = lambda model: None) -> None:
        model = onnx.load(_model(tiny_run, FP32))
        spoil(model)
        monkeypatch.setattr("exporter.job.trace", lambda subject, opset: onnx_ir.serde.deserialize_model(model))

    return stand_in


def _again(checkpoint: Path, out: Path, texts: Source, precisions: tuple[Precision, ...] = BOTH) -> list[Exported]:
    """The same export as the tiny run's."""
    return list(export(Request(checkpoint, out, precisions, data=texts)))


def _model(run: Path, precision: Precision | str) -> Path:
    return run / "variants" / precision / "model.onnx"


def _record(run: Path, precision: Precision | str) -> dict[str, Any]:
    return dict(json.loads((run / "variants" / precision / "variant.json").read_text()))


def _table(path: Path, *lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


@pytest.mark.parametrize("precision", BOTH)
def test_a_variant_is_recorded_as_its_file_is(tiny_run: Path, precision: Precision) -> None:
    path = _model(tiny_run, precision)
    record, model = _record(tiny_run, precision), onnx.load(path)
    assert record["files"] == {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert record["size_bytes"] == len(path.read_bytes())
    assert record["ir_version"] == model.ir_version
    assert record["opset"] == next(item.version for item in model.opset_import if not item.domain)
    assert record["nodes"] == len(model.graph.node)
    attention = "Softmax" if precision is Precision.FP32 else "MultiHeadAttention"
    assert record["operators"][attention] == sum(node.op_type == attention for node in model.graph.node) == 2
    counts = {"int8": 0, "uint8": 0, "float32": 0}
    for tensor in model.graph.initializer:
        kind = {1: "float32", 2: "uint8", 3: "int8"}.get(tensor.data_type)
        if kind:
            counts[kind] += int(np.prod(tensor.dims))
    assert {kind: count for kind, count in record["weight_elements"].items() if kind in counts} == {
        kind: count for kind, count in counts.items() if count
    }
    assert (counts["int8"] + counts["uint8"] > 0) == (precision is INT8)
    assert record["task"] == "text-classification"
    assert {spec["name"] for spec in record["inputs"]} == {"input_ids", "attention_mask", "token_type_ids"}
    assert [spec["name"] for spec in record["inputs"]] == [value.name for value in model.graph.input]
    assert {tuple(spec["shape"]) for spec in record["inputs"]} == {("batch", "sequence")}
    assert record["support"][0] == {"engine": "ort-cpu", "runs": True, "reason": None}


def test_parity_figures_are_those_of_an_independent_comparison(
    tiny_checkpoint: Path, tiny_run: Path, reviews: Path
) -> None:
    texts = list(read_texts(reviews)[:40])
    eights = [texts[start : start + 8] for start in range(0, 40, 8)]
    batches = [tokenize(tiny_checkpoint, eight) for eight in eights]
    expected = np.concatenate([torch_logits(tiny_checkpoint, batch) for batch in batches])
    for precision in BOTH:
        actual = np.concatenate([onnx_logits(_model(tiny_run, precision), batch) for batch in batches])
        parity, scale = _record(tiny_run, precision)["parity"], np.abs(expected).max()
        assert (parity["examples"], parity["inputs"]) == (40, "texts.csv")
        assert parity["scales"] == {"logits": pytest.approx(scale, rel=1e-5)}
        error = np.abs(actual - expected).max() / scale
        assert parity["max_error_fraction"] == pytest.approx(error, rel=1e-2, abs=1e-5)
        assert parity["flipped"] == (actual.argmax(-1) != expected.argmax(-1)).sum()
        alone = [onnx_logits(_model(tiny_run, precision), tokenize(tiny_checkpoint, [text])) for text in texts]
        picked = np.linspace(0, 39, 16).round().astype(int)
        apart = np.abs(np.concatenate(alone) - actual)[picked].max() / scale
        assert parity["invariance"]["examples"] == 16
        assert parity["invariance"]["alone_error_fraction"] == pytest.approx(apart, rel=1e-2, abs=1e-5)


def test_golden_examples_are_pytorchs_answers_to_each_text_alone(
    tiny_checkpoint: Path, tiny_run: Path, reviews: Path
) -> None:
    examples = json.loads((tiny_run / "golden.json").read_text())["examples"]
    lengths = [len(example["inputs"]["input_ids"]["values"]) for example in examples]
    known = read_texts(reviews)[:40]
    every = [len(tokenize(tiny_checkpoint, [text])["input_ids"][0]) for text in known]
    assert len(examples) == 12
    assert (lengths[0], lengths[-1]) == (min(every), max(every))
    worst = 0.0
    for example in examples:
        batch = tokenize(tiny_checkpoint, [example["text"]])
        assert example["text"] in known
        assert example["inputs"]["input_ids"]["values"] == batch["input_ids"][0].tolist()
        logits = np.array([example["outputs"]["logits"]["values"]], np.float32)
        assert close(logits, torch_logits(tiny_checkpoint, batch))
        worst = max(worst, float(np.abs(onnx_logits(_model(tiny_run, INT8), batch) - logits).max()))
    record = _record(tiny_run, INT8)
    assert record["golden_error_fraction"] == pytest.approx(worst / record["parity"]["scales"]["logits"], rel=1e-3)


def test_a_variant_knows_its_checkpoint(tiny_run: Path, tiny_checkpoint: Path) -> None:
    for precision in BOTH:
        assert _record(tiny_run, precision)["checkpoint_sha256"] == open_checkpoint(tiny_checkpoint).sha256


def test_the_same_export_is_reused(tiny_checkpoint: Path, copy: Path, export_texts: Source) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    assert [item.made for item in _again(tiny_checkpoint, copy, export_texts)] == [False, False]
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("precision", "name", "kept_bytes"),
    [
        (FP32, "model.onnx", 100),
        (INT8, "model.onnx", 100),
        (INT8, "model.onnx", None),
        (INT8, "variant.json", 100),
        (INT8, "variant.json", None),
    ],
)
def test_a_damaged_file_is_made_again(
    tiny_checkpoint: Path,
    tiny_run: Path,
    copy: Path,
    export_texts: Source,
    traced: Stand,
    precision: Precision,
    name: str,
    kept_bytes: int | None,
) -> None:
    traced()
    path = copy / "variants" / precision.value / name
    if kept_bytes is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:kept_bytes])
    made = {item.variant.precision: item.made for item in _again(tiny_checkpoint, copy, export_texts)}
    assert made == {other: other is precision for other in BOTH}
    assert _model(copy, precision).read_bytes() == _model(tiny_run, precision).read_bytes()


def test_lost_golden_examples_are_written_again(
    tiny_checkpoint: Path, tiny_run: Path, copy: Path, export_texts: Source
) -> None:
    (copy / "golden.json").unlink()
    assert [item.made for item in _again(tiny_checkpoint, copy, export_texts)] == [False, False]
    assert (copy / "golden.json").read_bytes() == (tiny_run / "golden.json").read_bytes()


def test_another_checkpoint_is_exported_anew(
    tiny_checkpoint: Path, copy: Path, export_texts: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(subject: Subject, opset: int | None) -> None:
        raise UserError(f"tracing {subject.name}")

    changed = Path(shutil.copytree(tiny_checkpoint, tmp_path / "changed"))
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr("exporter.job.trace", fail)
    with pytest.raises(UserError, match="tracing BertForSequenceClassification"):
        _again(changed, copy, export_texts)


def test_int8_alone_makes_the_fp32_graph_it_comes_from(
    tiny_checkpoint: Path, tiny_run: Path, tmp_path: Path, export_texts: Source, traced: Stand
) -> None:
    traced()
    (exported,) = _again(tiny_checkpoint, tmp_path / "run", export_texts, (INT8,))
    assert (exported.variant.precision, exported.made) == (INT8, True)
    for precision in BOTH:
        assert _model(tmp_path / "run", precision).read_bytes() == _model(tiny_run, precision).read_bytes()


@pytest.mark.slow
def test_a_model_without_token_type_ids_passes_on_the_built_in_texts(distilbert: Path, tmp_path: Path) -> None:
    (exported,) = export(Request(distilbert, tmp_path / "run", (FP32,)))
    assert [spec.name for spec in exported.variant.inputs] == ["input_ids", "attention_mask"]
    assert exported.variant.outputs[0].shape == ("batch", 3)
    assert exported.variant.parity.passed
    assert (exported.variant.parity.examples, exported.variant.parity.inputs) == (16, "built-in texts")
    assert exported.variant.metric is None
    batch = tokenize(distilbert, ["a warm and funny film", "dull", "not bad at all, not bad at all"])
    assert close(onnx_logits(exported.path, batch), torch_logits(distilbert, batch))


def _change(model: onnx.ModelProto, change: Callable[[Any], Any]) -> None:
    """Change the classifier's weights, which are (labels, hidden)."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "classifier.weight")
    assert list(tensor.dims) == [2, 32]
    array = np.ascontiguousarray(change(numpy_helper.to_array(tensor).copy()))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _one_weight(model: onnx.ModelProto, by: float = 0.05) -> None:
    def change(array: Any) -> Any:
        array[0, 0] += by
        return array

    _change(model, change)


def _swap_labels(model: onnx.ModelProto) -> None:
    _change(model, lambda array: array[::-1])


def _nan(model: onnx.ModelProto) -> None:
    _one_weight(model, np.nan)


def _invert_mask(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[index] = "inverted"
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    model.graph.initializer.append(one)
    model.graph.node.insert(0, onnx.helper.make_node("Sub", ["one", "attention_mask"], ["inverted"]))


def _third_label(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["two" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Concat", ["two", "two"], ["logits"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def _fixed_length(model: onnx.ModelProto) -> None:
    """A graph that only takes texts of seven tokens, as one traced with a static axis would."""
    shape = numpy_helper.from_array(np.array([-1, 7], np.int64), "seven")
    model.graph.initializer.append(shape)
    for node in model.graph.node:
        node.input[:] = ["fixed" if name == "input_ids" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["input_ids", "seven"], ["fixed"]))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_one_weight, "the largest error on the examples is"),
        (_invert_mask, "the largest error on the examples is"),
        (_swap_labels, "of 40 answers differ (allowed: 0)"),
        (_nan, "a batch of the examples gives values that are not finite"),
        (_third_label, "a batch of the examples gives 'logits' the shape (8, 4), not (8, 2)"),
        (_fixed_length, "shape 1×1 does not run"),
    ],
)
def test_a_broken_graph_is_caught_and_recorded(
    tiny_checkpoint: Path,
    tmp_path: Path,
    export_texts: Source,
    traced: Stand,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Break,
    reason: str,
) -> None:
    traced(spoil)
    out = tmp_path / "run"
    command = ("export", tiny_checkpoint, "--out", out, "--precisions", "fp32", "--data", export_texts.path)
    done = within(*command)
    assert done.returncode == 1, done.stderr
    assert "error: fp32: " in done.stderr
    assert reason in done.stderr
    parity = _record(out, FP32)["parity"]
    assert parity["passed"] is False
    assert any(reason in text for text in parity["reasons"])
    assert np.isfinite([parity["max_error_fraction"], parity["p99_error_fraction"], parity["cosine"]]).all()
    told = (out / "variants.md").read_text()
    assert "| fp32 ✗ |" in told
    assert f"fails, because {parity['reasons'][0]}" in told
    assert str(tmp_path) not in told + (out / "variants/fp32/variant.json").read_text()
    monkeypatch.setattr("exporter.job.trace", None)
    assert within(*command).returncode == 1  # known from its record, without another trace
    with pytest.raises(UserError, match="did not pass its export"):
        find_models(out).model(Candidate("ort-cpu", FP32))


def _nothing(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    """An int8 graph that is still the fp32 one."""
    return material.graph(), Recipe(profile="portable")


def _unknown(material: Material, choice: Choice) -> tuple[onnx_ir.Model, Recipe]:
    """An int8 graph with an operator that no engine has."""
    model = onnx_ir.serde.serialize_model(material.graph())
    small = numpy_helper.from_array(np.zeros(4, np.int8), "small")
    model.graph.initializer.append(small)
    for node in model.graph.node:
        node.output[:] = ["before" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Imagined", ["before", "small"], ["logits"], domain="com.microsoft"))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return onnx_ir.serde.deserialize_model(model), Recipe(profile="portable")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_nothing, "it is called int8-dynamic, but none of its weights is"),
        (_unknown, "a batch of the examples does not run: onnxruntime cannot run model.onnx on CPUExecutionProvider"),
    ],
)
def test_a_quantised_file_that_is_none_is_caught_and_recorded(
    tiny_checkpoint: Path,
    tmp_path: Path,
    export_texts: Source,
    traced: Stand,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Material, Choice], tuple[onnx_ir.Model, Recipe]],
    reason: str,
) -> None:
    traced()
    kinds = frozenset(LayerKind) if make is _unknown else frozenset()
    monkeypatch.setitem(DERIVATIONS, INT8, Derivation(make, kinds))
    out = tmp_path / "run"
    done = within("export", tiny_checkpoint, "--out", out, "--data", export_texts.path)
    assert done.returncode == 1, done.stderr
    assert reason in done.stderr
    record = _record(out, INT8)
    assert any(text.startswith(reason) for text in record["parity"]["reasons"])
    assert _record(out, FP32)["parity"]["passed"]
    told = (out / "variants.md").read_text()
    assert "| fp32 ✓ |" in told
    assert "| int8-dynamic ✗ |" in told
    assert str(tmp_path) not in told + json.dumps(record)


@pytest.mark.parametrize(
    ("precisions", "message"), [((), "names nothing"), ((FP32, Precision.TF32), "names tf32, which cannot be exported")]
)
def test_precisions_that_cannot_be_made_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, precisions: tuple[Precision, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        export(Request(tiny_checkpoint, tmp_path / "run", precisions))
    assert ", ".join(SIX) in raised.value.hint
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist or is not a folder"):
        export(Request(tmp_path / "nowhere", tmp_path / "run", BOTH))
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_holds_something_else_is_left_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        export(Request(tiny_checkpoint, tmp_path, BOTH))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_tokenizer_whose_files_disagree_is_refused(tiny_checkpoint: Path, tmp_path: Path, traced: Stand) -> None:
    """tokenizer_config.json asks transformers for another lower-casing than tokenizer.json does by itself."""
    traced()
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.update(tokenizer_class="BertTokenizer", do_lower_case=True)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    assert AutoTokenizer.from_pretrained(copy).tokenize("Film") == ["film"]
    data = Source(_table(tmp_path / "data.csv", ["text"], ["A Film"]), Columns())
    with pytest.raises(UserError, match=r"tokenizer\.json gives the input_ids"):
        export(Request(copy, tmp_path / "run", (FP32,), data=data))
    assert not (tmp_path / "run/variants/fp32/variant.json").exists()


@pytest.mark.slow
def test_the_real_model_agrees_with_pytorch_in_every_label(minilm_run: Path) -> None:
    texts = list(read_texts(minilm_run / "data" / "evaluation.csv"))
    batch = tokenize(minilm_run / "checkpoint", texts)
    expected = torch_logits(minilm_run / "checkpoint", batch)
    actual = onnx_logits(_model(minilm_run, FP32), batch)
    assert len(texts) == 80
    assert close(actual, expected)
    assert (actual.argmax(-1) == expected.argmax(-1)).all()


def test_int8_static_without_calibration_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = within("export", tiny_checkpoint, "--out", tmp_path / "run", "--precisions", "fp32,int8-static")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: int8-static needs examples of the training split" in done.stderr
    assert "--calibration FILE" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (([["text"]]), "calibration.csv holds no examples"),
        ([["text"], ["a film of its own"], ["SHARED"]], "1 examples are both in the calibration and in the evaluation"),
        ([["body"], ["a film"]], "calibration.csv has no column named text"),
    ],
)
def test_calibration_that_cannot_be_used_is_refused(
    tiny_checkpoint: Path,
    tmp_path: Path,
    export_texts: Source,
    traced: Stand,
    lines: list[list[str]],
    words: str,
) -> None:
    traced()
    shared = read_texts(export_texts.path)[7]
    path = _table(
        tmp_path / "calibration.csv", *[[shared if cell == "SHARED" else cell for cell in line] for line in lines]
    )
    options = ("--precisions", "int8-static", "--data", export_texts.path, "--calibration", path)
    done = within("export", tiny_checkpoint, "--out", tmp_path / "run", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert ("such as '" + shared[:60] in done.stderr) is ("SHARED" in [line[0] for line in lines])
    assert not list((tmp_path / "run").rglob("variant.json"))


@pytest.fixture
def split_run(tiny_checkpoint: Path, tmp_path: Path, export_texts: Source, traced: Stand) -> Path:
    """A run whose weights are too large for one file, if one byte were too large."""
    traced()
    out = tmp_path / "split"
    exported = export(Request(tiny_checkpoint, out, BOTH, data=export_texts, external_data_bytes=1))
    assert [item.variant.passed for item in exported] == [True, True]
    return out


def test_weights_in_a_second_file_are_recorded_counted_packed_and_proved(
    split_run: Path, tiny_checkpoint: Path, tmp_path: Path, export_texts: Source, tiny_run: Path
) -> None:
    names = {FP32: "model.onnx_data", INT8: "model_quantized.onnx_data"}
    batch = tokenize(tiny_checkpoint, ["a warm and funny film", "dull"])
    for precision, data_name in names.items():
        graph = _model(split_run, precision)
        files = {path.name: path for path in graph.parent.iterdir() if path.name != "variant.json"}
        assert set(files) == {"model.onnx", data_name}
        record = _record(split_run, precision)
        assert record["files"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        assert record["size_bytes"] == sum(path.stat().st_size for path in files.values())
        assert (onnx_logits(graph, batch) == onnx_logits(_model(tiny_run, precision), batch)).all()

        candidate = Candidate("ort-cpu", precision)
        assert find_models(split_run).model_bytes(candidate) == record["size_bytes"]
        out = tmp_path / f"artifact-{precision}"
        packed = pack(RunFolder(split_run), precision, out, card=None, card_reason="not measured")
        assert (out / "onnx" / data_name).read_bytes() == files[data_name].read_bytes()
        assert packed.size_bytes == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        assert find_models(out).model_bytes(candidate) == sum(path.stat().st_size for path in (out / "onnx").iterdir())
        assert run_predict(out, "--selftest").returncode == 0

    sha256 = find_models(split_run).model_sha256(Candidate("ort-cpu", INT8))
    for damaged in (out / "onnx" / data_name, files[data_name]):
        damaged.write_bytes(damaged.read_bytes()[:-1] + bytes([damaged.read_bytes()[-1] ^ 1]))
    done = run_predict(out, "a film")
    assert done.returncode != 0
    assert b"model_quantized.onnx_data was changed or damaged" in done.stderr
    with pytest.raises(UserError, match=r"model_quantized\.onnx_data was changed"):
        find_models(out)
    assert find_models(split_run).model_sha256(Candidate("ort-cpu", INT8)) != sha256
    with pytest.raises(UserError, match="is not the file that was exported"):
        pack(RunFolder(split_run), INT8, tmp_path / "other", card=None, card_reason="")
    made = export(Request(tiny_checkpoint, split_run, BOTH, data=export_texts, external_data_bytes=1))
    assert [item.made for item in made] == [False, True]
    assert find_models(split_run).model_sha256(Candidate("ort-cpu", INT8)) == sha256
    made = export(Request(tiny_checkpoint, split_run, (INT8,), data=export_texts))
    assert [path.name for path in sorted(made[0].path.parent.iterdir())] == ["model.onnx", "variant.json"]
    assert made[0].path.read_bytes() == _model(tiny_run, INT8).read_bytes()


def test_pairs_of_texts_are_compared_as_pairs(tiny_checkpoint: Path, tmp_path: Path, traced: Stand) -> None:
    traced()
    pairs = [("a warm and funny film", "not bad at all"), ("dull", "the best film of the year"), ("a film", "dull")]
    data = Source(_table(tmp_path / "pairs.csv", ["sentence1", "sentence2"], *pairs), Columns())
    (exported,) = export(Request(tiny_checkpoint, tmp_path / "run", (FP32,), data=data))
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    batch = dict(tokenizer([one for one, _ in pairs], [two for _, two in pairs], padding=True, return_tensors="np"))
    assert batch["token_type_ids"].any()
    expected = torch_logits(tiny_checkpoint, batch)
    without = torch_logits(tiny_checkpoint, batch | {"token_type_ids": np.zeros_like(batch["token_type_ids"])})
    alone = torch_logits(tiny_checkpoint, tokenize(tiny_checkpoint, [one for one, _ in pairs]))
    parity = exported.variant.parity
    assert parity.passed
    assert parity.scales["logits"] == pytest.approx(np.abs(expected).max(), rel=1e-4)
    for other in (without, alone):
        assert np.abs(other).max() != pytest.approx(np.abs(expected).max(), rel=1e-2)
    assert close(onnx_logits(exported.path, batch), expected)
    assert exported.variant.golden_error_fraction is not None
    assert exported.variant.golden_error_fraction < 1e-4
    pack(RunFolder(tmp_path / "run"), FP32, tmp_path / "artifact", card=None, card_reason="")
    golden = json.loads((tmp_path / "artifact" / "golden.json").read_text())["examples"]
    assert {(item["text"], item["pair"]) for item in golden} <= set(pairs)
    assert any(sum(item["inputs"]["token_type_ids"]["values"]) for item in golden)
    again = export(Request(tiny_checkpoint, tmp_path / "run", (FP32,), data=data))
    assert [item.made for item in again] == [False]


def test_the_ort_profile_is_fused_and_still_agrees(
    tiny_checkpoint: Path, tmp_path: Path, export_texts: Source, traced: Stand
) -> None:
    traced()
    out = tmp_path / "run"
    done = within("export", tiny_checkpoint, "--out", out, "--data", export_texts.path, "--profile", "ort", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [variant["precision"] for variant in told] == ["fp32", "int8-dynamic"]
    batch = tokenize(tiny_checkpoint, ["a warm and funny film", "dull"])
    for variant in told:
        path = _model(out, variant["precision"])
        operators = [node.op_type for node in onnx.load(path).graph.node]
        assert variant == _record(out, variant["precision"])
        assert variant["recipe"]["profile"] == "ort"
        assert "com.microsoft" in variant["domains"]
        assert sum(variant["fused"].values()) > 0
        assert variant["fused"] == {name: operators.count(name) for name in variant["fused"]}
        assert {item.name for item in path.parent.iterdir()} == {"model.onnx", "variant.json"}
    assert close(onnx_logits(_model(out, FP32), batch), torch_logits(tiny_checkpoint, batch))


@pytest.fixture(scope="module")
def inputs(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """40 labelled reviews to judge by, and 200 other ones without labels to calibrate with."""
    folder = tmp_path_factory.mktemp("inputs")
    examples = read_examples(reviews)
    rows = [[str(text), str(label)] for text, label in zip(examples.texts, examples.labels, strict=True)]
    judged = _table(folder / "judged.csv", ["text", "label"], *rows[:40])
    return judged, _table(folder / "training.csv", ["text"], *[[text] for text, _ in rows[40:240]])


def _arguments(checkpoint: Path, out: Path, inputs: tuple[Path, Path]) -> list[str]:
    judged, training = inputs
    target = Target.X86_WITHOUT_VNNI if saturates() else Target.X86
    options = ["--precisions", "all", "--data", judged, "--calibration", training, "--target", target, "--json"]
    return ["export", str(checkpoint), "--out", str(out), *map(str, options)]


@pytest.fixture(scope="module")
def full(
    tiny_checkpoint: Path, inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A run with every precision, and what the command printed. Do not write into it."""
    folder = tmp_path_factory.mktemp("full")
    checkpoint = Path(shutil.copytree(tiny_checkpoint, folder / "one copy"))
    done = within(*_arguments(checkpoint, folder / "run", inputs))
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    return folder / "run", json.loads(done.stdout)


@pytest.mark.slow
def test_all_makes_every_precision(full: tuple[Path, list[dict[str, Any]]]) -> None:
    run, told = full
    assert tuple(variant["precision"] for variant in told) == SIX
    assert {path.name for path in (run / "variants").iterdir()} == set(SIX)
    kinds = {"fp32": 1, "fp16": 10, "bf16": 16, "int8-dynamic": 3, "int8-static": 3, "int4": 2}  # onnx's numbers
    for variant in told:
        name = variant["precision"]
        assert variant == _record(run, name)
        weights = onnx.load(_model(run, name)).graph.initializer
        assert kinds[name] in {tensor.data_type for tensor in weights if np.prod(tensor.dims) > 100}, name
        assert variant["parity"]["passed"]
        assert variant["parity"]["emulated"] is (name in ("fp16", "bf16"))
        assert f"| {name} " in (run / "variants.md").read_text()


@pytest.mark.slow
def test_bf16_is_not_replaced_where_the_engine_has_no_kernels(full: tuple[Path, list[dict[str, Any]]]) -> None:
    run, told = full
    bf16 = next(variant for variant in told if variant["precision"] == "bf16")
    with pytest.raises(Exception, match="NOT_IMPLEMENTED") as raised:
        session(_model(run, "bf16"))
    found = bf16["support"][0]
    assert (found["engine"], found["runs"]) == ("ort-cpu", False)
    kind, _, sentence = found["reason"].partition(": ")
    assert kind == "NOT_IMPLEMENTED"
    assert sentence in str(raised.value)
    weights = {tensor.data_type for tensor in onnx.load(_model(run, "bf16")).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in weights
    for variant in told:
        assert variant["support"][0]["runs"] is (variant["precision"] != "bf16")


@pytest.mark.slow
def test_the_metric_is_that_of_the_labels(
    full: tuple[Path, list[dict[str, Any]]], tiny_checkpoint: Path, inputs: tuple[Path, Path]
) -> None:
    run, told = full
    examples = read_examples(inputs[0])
    truth = np.array([int(str(label)) for label in examples.labels])  # positions, as the reviews are labelled
    eights = [list(map(str, examples.texts[start : start + 8])) for start in range(0, 40, 8)]
    batches = [tokenize(tiny_checkpoint, eight) for eight in eights]
    expected = np.concatenate([torch_logits(tiny_checkpoint, batch) for batch in batches]).argmax(-1) == truth
    for variant in told:
        if variant["parity"]["emulated"]:
            continue  # half arithmetic is not what this CPU computes
        path = _model(run, variant["precision"])
        actual = np.concatenate([onnx_logits(path, batch) for batch in batches]).argmax(-1) == truth
        wins, losses = int((actual & ~expected).sum()), int((expected & ~actual).sum())
        interval, metric = accuracy_difference(wins, losses, 40), variant["metric"]
        assert (metric["name"], metric["examples"]) == ("accuracy", 40)
        assert metric["value"] == pytest.approx(actual.mean())
        assert metric["reference"] == pytest.approx(expected.mean())
        assert metric["difference_low"] == pytest.approx(interval.low)
        assert metric["difference_high"] == pytest.approx(interval.high)
        assert metric["excluded_drop"] == pytest.approx(-(interval.low or 0))


@pytest.mark.slow
def test_every_way_to_calibrate_was_tried_on_examples_it_did_not_see(full: tuple[Path, list[dict[str, Any]]]) -> None:
    recipe = next(variant["recipe"] for variant in full[1] if variant["precision"] == "int8-static")
    tried = recipe["calibrations"]
    assert recipe["calibration_examples"] == 67  # a third of 200; the others decide
    assert set(tried) == {"minmax", "percentile", "entropy"}
    assert max(tried.values()) == tried[recipe["calibration"]] < 0  # negative errors, because nothing is labelled


def _names() -> list[str]:
    """What would tell on whose machine a file was made; a name of three letters may stand there by chance."""
    names = (socket.gethostname(), f"/{getpass.getuser()}/", str(Path.home()), str(Path.cwd()), tempfile.gettempdir())
    return [name for name in (*names, "site-packages") if len(name) > 3]


@pytest.mark.slow
def test_nothing_in_a_variant_tells_where_it_was_made(full: tuple[Path, list[dict[str, Any]]]) -> None:
    files = [path for path in (full[0] / "variants").rglob("*") if path.is_file()]
    assert len(files) == 12
    for path in files:
        for name in _names():
            assert name.encode() not in path.read_bytes(), f"{name} is in {path}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "seen",
    ["variants/fp32/*", pytest.param("variants/fp32/variant.json", marks=pytest.mark.exhaustive)],
    ids=["while the graph is written", "after its record is"],
)
def test_a_killed_export_leaves_nothing_half_made_and_ends_in_the_same_bytes(
    full: tuple[Path, list[dict[str, Any]]], tiny_checkpoint: Path, inputs: tuple[Path, Path], tmp_path: Path, seen: str
) -> None:
    """In processes of their own, from another copy of the checkpoint and other folders."""
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "elsewhere" / "model"))
    out = tmp_path / "elsewhere" / "result"
    copies = [Path(shutil.copy(path, tmp_path / path.name)) for path in inputs]
    command = [
        str(Path(sys.executable).parent / "steelyard"),
        *_arguments(checkpoint, out, (copies[0], copies[1])),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        while not list(out.glob(seen)):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    for name in SIX:
        path = _model(out, name)
        assert not path.exists() or path.read_bytes() == _model(full[0], name).read_bytes()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert [variant["precision"] for variant in json.loads(done.stdout)] == list(SIX)
    assert _content(out / "variants") == _content(full[0] / "variants")


def _content(folder: Path) -> dict[str, str]:
    """The sha256 of every file, of a record's without its seconds."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".part":  # a temporary file, empty or cut short, that no one reads
            data = path.read_bytes()
            if path.name == "variant.json":
                record = json.loads(data)
                assert record.pop("seconds_s") > 0
                data = json.dumps(record).encode()
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    assert len(found) == 12
    return found


@pytest.mark.slow
def test_a_size_that_the_trace_fixed_is_fixed_for_later_precisions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch takes images of any size; where the tracer does not, later variants are not asked for what none runs."""
    from transformers import ResNetConfig, ResNetForImageClassification

    def refuse(subject: Subject, opset: int | None) -> onnx_ir.Model:
        if len(subject.axes) > 1:
            raise UserError("no branch on a size")
        return trace(subject, opset=opset)

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", image_size=32)
    ResNetForImageClassification(config).eval().save_pretrained(tmp_path / "checkpoint")
    monkeypatch.setattr("exporter.job.trace", refuse)
    for precisions in ((FP32,), (FP32, FP16)):
        exported = export(Request(tmp_path / "checkpoint", tmp_path / "run", precisions))
        assert [item.variant.parity.reasons for item in exported] == [()] * len(precisions)
        assert exported[-1].variant.inputs[0].shape == ("batch", 3, 32, 32)
    assert [item.made for item in exported] == [False, True]


def test_an_environment_with_only_the_gpu_build_of_onnxruntime_can_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shares the import name and not the package's name."""

    def without(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("exporter.request.version", without)
    assert request.versions()["onnxruntime"] == onnxruntime.__version__
