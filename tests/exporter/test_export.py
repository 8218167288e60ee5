import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from transformers import AutoTokenizer

from artifact.examples import read_examples, read_texts
from artifact.precision import Precision
from errors import GateFailed, UserError
from exporter.export import Exported, export
from models.checkpoint import open_checkpoint
from tests.exporter.conftest import close, onnx_logits, tokenize, torch_logits

FP32, INT8 = Precision.FP32, Precision.INT8_DYNAMIC
BOTH = (FP32, INT8)
Break = Callable[[onnx.ModelProto], None]


@pytest.fixture
def copy(tiny_run: Path, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The exported run; its link to the checkpoint holds from its new place."""
    out = shutil.copytree(tiny_run, tmp_path / "run")
    (out / "checkpoint.json").unlink()
    return out


def _again(checkpoint: Path, out: Path, reviews: Path, precisions: tuple[Precision, ...] = BOTH) -> list[Exported]:
    return list(export(checkpoint, out, precisions, texts=read_texts(reviews)[:40]))


def _model(run: Path, precision: Precision) -> Path:
    return run / "variants" / precision.value / "model.onnx"


def _record(run: Path, precision: Precision) -> dict[str, object]:
    return dict(json.loads((run / "variants" / precision.value / "variant.json").read_text()))


@pytest.mark.parametrize("precision", BOTH)
def test_a_variant_is_recorded_as_its_file_is(tiny_run: Path, precision: Precision) -> None:
    path = _model(tiny_run, precision)
    record, model = _record(tiny_run, precision), onnx.load(path)
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["size_bytes"] == len(path.read_bytes())
    assert record["ir_version"] == model.ir_version
    assert record["opset"] == next(item.version for item in model.opset_import if not item.domain)
    assert record["nodes"] == len(model.graph.node)
    small = [np.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in (2, 3)]
    every = [np.prod(tensor.dims) for tensor in model.graph.initializer]
    assert record["quantized_weights_fraction"] == pytest.approx(sum(small) / sum(every))
    assert (len(small) > 0) == (precision is INT8)


def test_parity_figures_are_those_of_an_independent_comparison(
    tiny_checkpoint: Path, tiny_run: Path, reviews: Path
) -> None:
    texts = list(read_texts(reviews)[:40])
    eights = [texts[start : start + 8] for start in range(0, 40, 8)]
    batches = [tokenize(tiny_checkpoint, eight) for eight in eights]
    expected = np.concatenate([torch_logits(tiny_checkpoint, batch) for batch in batches])
    for precision in BOTH:
        actual = np.concatenate([onnx_logits(_model(tiny_run, precision), batch) for batch in batches])
        parity = _record(tiny_run, precision)["parity"]
        assert isinstance(parity, dict)
        assert parity["texts"] == 40
        assert parity["scale"] == pytest.approx(np.abs(expected).max(), rel=1e-5)
        assert parity["max_error"] == pytest.approx(np.abs(actual - expected).max(), rel=1e-2, abs=1e-4)
        assert parity["flips"] == (actual.argmax(-1) != expected.argmax(-1)).sum()


def test_golden_examples_are_pytorchs_answers_to_each_text_alone(
    tiny_checkpoint: Path, tiny_run: Path, reviews: Path
) -> None:
    examples = json.loads((tiny_run / "golden.json").read_text())["examples"]
    lengths = [len(example["input_ids"]) for example in examples]
    known = read_texts(reviews)[:40]
    every = [len(tokenize(tiny_checkpoint, [text])["input_ids"][0]) for text in known]
    assert len(examples) == 12
    assert (lengths[0], lengths[-1]) == (min(every), max(every))
    for example in examples:
        batch = tokenize(tiny_checkpoint, [example["text"]])
        assert example["text"] in known
        assert example["input_ids"] == batch["input_ids"][0].tolist()
        assert close(np.array([example["logits"]], np.float32), torch_logits(tiny_checkpoint, batch))


def test_the_same_export_is_reused(tiny_checkpoint: Path, copy: Path, reviews: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    assert [item.made for item in _again(tiny_checkpoint, copy, reviews)] == [False, False]
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("precision", "name", "kept_bytes"),
    [
        pytest.param(FP32, "model.onnx", 100, marks=pytest.mark.slow),
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
    reviews: Path,
    precision: Precision,
    name: str,
    kept_bytes: int | None,
) -> None:
    path = copy / "variants" / precision.value / name
    if kept_bytes is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:kept_bytes])
    made = {item.variant.precision: item.made for item in _again(tiny_checkpoint, copy, reviews)}
    assert made == {other: other is precision for other in BOTH}
    assert _model(copy, precision).read_bytes() == _model(tiny_run, precision).read_bytes()


def test_lost_golden_examples_are_written_again(
    tiny_checkpoint: Path, tiny_run: Path, copy: Path, reviews: Path
) -> None:
    (copy / "golden.json").unlink()
    assert [item.made for item in _again(tiny_checkpoint, copy, reviews)] == [False, False]
    assert (copy / "golden.json").read_bytes() == (tiny_run / "golden.json").read_bytes()


def test_another_checkpoint_is_exported_anew(
    tiny_checkpoint: Path, copy: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(checkpoint: Path) -> None:
        raise UserError(f"tracing {checkpoint.name}")

    changed = shutil.copytree(tiny_checkpoint, tmp_path / "changed")
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr("exporter.trace.trace", fail)
    with pytest.raises(UserError, match="tracing changed"):
        _again(changed, copy, reviews)


@pytest.mark.slow
def test_int8_alone_makes_the_fp32_graph_it_comes_from(
    tiny_checkpoint: Path, tiny_run: Path, tmp_path: Path, reviews: Path
) -> None:
    (exported,) = _again(tiny_checkpoint, tmp_path / "run", reviews, (INT8,))
    assert (exported.variant.precision, exported.made) == (INT8, True)
    for precision in BOTH:
        assert _model(tmp_path / "run", precision).read_bytes() == _model(tiny_run, precision).read_bytes()


@pytest.mark.slow
def test_a_model_without_token_type_ids_passes_on_the_built_in_texts(distilbert: Path, tmp_path: Path) -> None:
    (exported,) = export(distilbert, tmp_path / "run", (FP32,))
    assert [spec.name for spec in exported.variant.inputs] == ["input_ids", "attention_mask"]
    assert exported.variant.outputs[0].shape == ("batch", 3)
    assert exported.variant.parity.passed
    assert exported.variant.parity.texts == 16
    batch = tokenize(distilbert, ["a warm and funny film", "dull", "not bad at all, not bad at all"])
    assert close(onnx_logits(exported.path, batch), torch_logits(distilbert, batch))


def test_an_int8_file_that_quantised_nothing_is_an_error(
    tiny_checkpoint: Path, copy: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _model(copy, INT8).unlink()
    monkeypatch.setattr("exporter.export.DERIVATIONS", {INT8: shutil.copyfile})
    with pytest.raises(GateFailed, match="is called int8-dynamic, but nothing in it was quantised"):
        _again(tiny_checkpoint, copy, reviews)


def _change_classifier(model: onnx.ModelProto, by: float = 0.05) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.startswith("classifier.weight"))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _invert_mask(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[index] = "inverted"
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    model.graph.initializer.append(one)
    model.graph.node.insert(0, onnx.helper.make_node("Sub", ["one", "attention_mask"], ["inverted"]))


def _nan(model: onnx.ModelProto) -> None:
    _change_classifier(model, np.nan)


def _third_label(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["two" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Concat", ["two", "two"], ["logits"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_change_classifier, "largest error"),
        (_invert_mask, "largest error"),
        (_nan, "not finite"),
        (_third_label, "gives the shape"),
    ],
)
def test_a_broken_graph_fails_the_gate_and_is_recorded(
    tiny_checkpoint: Path,
    tiny_run: Path,
    tmp_path: Path,
    reviews: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Break,
    reason: str,
) -> None:
    def save_broken(graph: object, path: Path) -> None:
        model = onnx.load(_model(tiny_run, FP32))
        spoil(model)
        path.parent.mkdir(parents=True)
        onnx.save(model, path)

    monkeypatch.setattr("exporter.trace.trace", lambda folder: None)
    monkeypatch.setattr("exporter.trace.save_graph", save_broken)
    out = tmp_path / "run"
    with pytest.raises(GateFailed, match=reason):
        _again(tiny_checkpoint, out, reviews, (FP32,))
    parity = _record(out, FP32)["parity"]
    assert isinstance(parity, dict)
    assert parity["passed"] is False
    assert np.isfinite([parity["max_error"], parity["p99_error"], parity["cosine"]]).all()
    monkeypatch.setattr("exporter.trace.save_graph", None)
    with pytest.raises(GateFailed, match=reason):  # known from its record, without another trace
        _again(tiny_checkpoint, out, reviews, (FP32,))


@pytest.mark.parametrize(
    ("precisions", "message"), [((), "names nothing"), ((FP32, Precision.INT4), "names int4, which cannot be exported")]
)
def test_precisions_that_cannot_be_made_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, precisions: tuple[Precision, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        export(tiny_checkpoint, tmp_path / "run", precisions)
    assert "fp32, int8-dynamic" in raised.value.hint
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist or is not a folder"):
        export(tmp_path / "nowhere", tmp_path / "run", BOTH)


def test_an_output_folder_that_holds_something_else_is_left_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        export(tiny_checkpoint, tmp_path, BOTH)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["variants/fp32/*", "variants/fp32/variant.json"])
def test_a_killed_export_leaves_nothing_half_made(
    tiny_checkpoint: Path, tiny_run: Path, reviews: Path, tmp_path: Path, seen: str
) -> None:
    out, data = tmp_path / "run", tmp_path / "texts.csv"
    data.write_text("\n".join(reviews.read_text().splitlines()[:41]) + "\n")
    steelyard = str(Path(sys.executable).parent / "steelyard")
    command = [steelyard, "export", str(tiny_checkpoint), "--out", str(out), "--data", str(data)]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL) as process:
        while not list(out.glob(seen)):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    for precision in BOTH:
        path = _model(out, precision)
        assert not path.exists() or path.read_bytes() == _model(tiny_run, precision).read_bytes()
    made = {item.variant.precision: item.made for item in _again(tiny_checkpoint, out, reviews)}
    assert made == {FP32: "*" in seen, INT8: True}
    for precision in BOTH:
        assert _model(out, precision).read_bytes() == _model(tiny_run, precision).read_bytes()


@pytest.mark.slow
def test_the_real_model_agrees_with_pytorch_in_every_label(minilm_run: Path) -> None:
    texts = list(read_examples(minilm_run / "data" / "evaluation.csv").texts)
    batch = tokenize(minilm_run / "checkpoint", texts)
    expected = torch_logits(minilm_run / "checkpoint", batch)
    actual = onnx_logits(_model(minilm_run, FP32), batch)
    assert len(texts) == 80
    assert close(actual, expected)
    assert (actual.argmax(-1) == expected.argmax(-1)).all()


def test_a_tokenizer_whose_files_disagree_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """tokenizer_config.json asks transformers for another lower-casing than tokenizer.json does by itself."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.update(tokenizer_class="BertTokenizer", do_lower_case=True)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    assert AutoTokenizer.from_pretrained(copy).tokenize("Film") == ["film"]
    with pytest.raises(UserError, match=r"tokenizer\.json gives the ids"):
        export(copy, tmp_path / "run", (Precision.FP32,), texts=("A Film",))


def test_a_variant_knows_its_checkpoint(tiny_run: Path, tiny_checkpoint: Path) -> None:
    variant = json.loads((tiny_run / "variants/fp32/variant.json").read_text())
    assert variant["checkpoint_sha256"] == open_checkpoint(tiny_checkpoint).sha256
