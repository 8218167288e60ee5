from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, numpy_helper

from artifact.precision import Precision
from artifact.records import sha256_file
from errors import UserError
from exporter.calibrate import Calibration
from exporter.derive import DERIVATIONS, Choice, Material, derive
from exporter.half import emulate
from exporter.options import Options, Profile, Target
from exporter.request import EXPORTED
from exporter.save import save_graph
from tests.cpu import for_exact
from tests.exporter.conftest import tokenize
from tests.exporter.graphs import Weights, as_bytes, graph, node, random, run, weights_of

TEXTS = ["a warm and funny film", "dull, slow and far too long", "not bad", "i want my two hours back, every one"]
LOSS = {Precision.FP32: 1e-6, Precision.FP16: 0.02, Precision.BF16: 0.1}


@pytest.fixture(scope="module")
def material(traced_path: Path, tiny_checkpoint: Path) -> Material:
    batches = tuple(tokenize(tiny_checkpoint, TEXTS[start : start + 2]) for start in (0, 2))
    return Material(traced_path, batches, batches)


def _choice(precision: Precision, material: Material) -> Choice:
    return Choice(material.layers(DERIVATIONS[precision].kinds))


def _with(material: Material, options: Options) -> Material:
    return Material(material.fp32, material.batches, material.calibration, options)


def test_what_can_be_derived_is_what_can_be_asked_for() -> None:
    assert set(DERIVATIONS) == set(EXPORTED)
    assert set(EXPORTED) == set(Precision) - {Precision.TF32}


@pytest.mark.parametrize("precision", EXPORTED)
def test_deriving_is_repeatable_leaves_its_source_and_keeps_inputs_and_outputs(
    precision: Precision, material: Material
) -> None:
    before = sha256_file(material.fp32)
    choice = _choice(precision, material)
    made, _ = derive(precision, material, choice)
    assert as_bytes(made) == as_bytes(derive(precision, material, choice)[0])
    assert sha256_file(material.fp32) == before
    found, source = onnx.load_from_string(as_bytes(made)), onnx.load(material.fp32)
    assert list(found.graph.input) == list(source.graph.input)
    assert list(found.graph.output) == list(source.graph.output)
    assert {item.domain for item in found.opset_import} == {item.domain for item in found.graph.node}
    assert found.producer_name == "steelyard"
    names = [item.name for item in found.graph.node]
    assert len(set(names)) == len(names)
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize(
    "precision", [for_exact(precision) for precision in EXPORTED if precision is not Precision.INT4]
)
def test_each_derived_graph_answers_much_as_fp32_does(precision: Precision, material: Material) -> None:
    made, _ = derive(precision, material, _choice(precision, material))
    half = DERIVATIONS[precision].half
    made = made if half is None else emulate(made, half)
    for batch in material.batches:
        (expected,), (found,) = run(material.fp32, batch), run(made, batch)
        assert np.abs(found - expected).max() <= LOSS.get(precision, 0.3) * np.abs(expected).max()


def test_int4_answers_as_an_fp32_graph_with_its_weights_does(material: Material) -> None:
    """Four bits are too few for weights drawn at random; that they are the right ones is checked by unpacking them."""
    exact = _with(material, Options(accuracy_level=0))
    made, _ = derive(Precision.INT4, exact, _choice(Precision.INT4, material))
    stored, model = weights_of(made), onnx.load(material.fp32)
    turned = {item.input[1] for item in model.graph.node if item.op_type == "Gemm"}
    replaced = 0
    for tensor in model.graph.initializer:
        name, array = tensor.name, numpy_helper.to_array(tensor)
        if f"{name}.int8" in stored:
            array = stored[f"{name}.int8"] * stored[f"{name}.scale"]
        elif f"{name}.int4" in stored:
            packed = stored[f"{name}.int4"]
            whole = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], 32).astype(np.float32)
            scale = stored[f"{name}.scale"].reshape(*packed.shape[:2], 1)
            wide = ((whole - 8) * scale).reshape(len(packed), -1)  # (outputs, inputs)
            array = wide if name in turned else wide.T
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
        replaced += 1
    assert replaced == 14 + 3
    for batch in material.batches:
        (expected,) = run(onnx_ir.serde.deserialize_model(model), batch)
        assert run(made, batch)[0] == pytest.approx(expected, abs=1e-3)


def test_fp32_is_the_traced_graph_itself(material: Material, traced_bytes: bytes) -> None:
    assert as_bytes(derive(Precision.FP32, material, Choice())[0]) == traced_bytes


def test_matrices_become_signed_bytes_with_a_scale_for_each_output(material: Material) -> None:
    made, recipe = derive(Precision.INT8_DYNAMIC, material, _choice(Precision.INT8_DYNAMIC, material))
    model = onnx.load_from_string(as_bytes(made))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = [item for item in model.graph.node if item.op_type == "MatMulInteger"]
    assert len(products) == 2 * 6 + 2  # query, key, value, output and two of the feed-forward; pooler and classifier
    traced = onnx.load(material.fp32)
    source = {tensor.name: numpy_helper.to_array(tensor) for tensor in traced.graph.initializer}
    turned = {item.input[1] for item in traced.graph.node if item.op_type == "Gemm"}  # torch keeps (outputs, inputs)
    for item in products:
        name = item.input[1].removesuffix(".int8")
        whole, scale = tensors[item.input[1]], tensors[f"{name}.scale"]
        assert whole.dtype == np.int8
        assert scale.shape == (whole.shape[1],)
        known = source[name].T if name in turned else source[name]
        assert (np.abs(whole * scale.astype(np.float64) - known) <= 0.501 * scale).all()
    assert not [tensor for tensor in model.graph.initializer if tensor.data_type == 1 and _is_weight(tensor)]
    assert (recipe.target, recipe.weights, recipe.profile, recipe.kept) == ("x86", "signed", "portable", ())


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """A matrix; tables have a scale for each row, (rows, 1)."""
    return len(tensor.dims) == 2 and tensor.dims[1] > 1


def test_all_of_fp16_but_the_borders_is_half(material: Material) -> None:
    made, recipe = derive(Precision.FP16, material, Choice())
    model = onnx.load_from_string(as_bytes(made))
    assert (recipe.kept, recipe.weights_overflowing, recipe.weights_vanishing) == ((), 0, 0)
    assert {tensor.data_type for tensor in model.graph.initializer} <= {
        TensorProto.FLOAT16,
        TensorProto.INT64,
        TensorProto.BOOL,
    }
    before, after = (
        Counter(item.op_type for item in loaded.graph.node) for loaded in (onnx.load(material.fp32), model)
    )
    assert after - before == {"Cast": 1}  # that of the logits: what comes in are ids
    assert before["LayerNormalization"] == after["LayerNormalization"] == 5


def test_half_graphs_are_fused_as_fp32_ones_are(material: Material) -> None:
    gpu = _with(material, Options(profile=Profile.ORT_GPU))
    counts = {}
    for precision in (Precision.FP32, Precision.FP16):
        made, recipe = derive(precision, gpu, Choice())
        model = onnx.load_from_string(as_bytes(made))
        counts[precision] = Counter(item.op_type for item in model.graph.node if item.domain)
        assert recipe.profile == "ort-gpu"
    assert counts[Precision.FP32]["SkipLayerNormalization"] >= 4
    assert counts[Precision.FP16] == counts[Precision.FP32]


def test_a_large_activation_keeps_its_nodes_and_the_recipe_says_why(tmp_path: Path) -> None:
    weights: Weights = {"up": np.float32(1e5), "down": np.float32(1e-5), "w": np.full((4, 4), 1e-9, np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], "h", "dense"),
        node("Add", ["x", "h"], "s", "sum"),
        node("Mul", ["s", "up"], "a", "rise"),
        node("Mul", ["a", "down"], "y", "fall"),
    ]
    save_graph(graph(nodes, {"x": ("n", 4)}, {"y": ("n", 4)}, weights), tmp_path / "model.onnx")
    x = {"x": random(3, 4)}
    made, recipe = derive(Precision.FP16, Material(tmp_path / "model.onnx", (x,), ()), Choice())
    assert [item.name for item in recipe.kept] == ["rise", "fall"]
    assert all("reaches" in item.why for item in recipe.kept)
    assert (recipe.weights_overflowing, recipe.weights_vanishing) == (0, 16)
    half = DERIVATIONS[Precision.FP16].half
    assert half is not None
    assert run(emulate(made, half), x)[0] == pytest.approx(x["x"], rel=5e-3)


def test_what_is_kept_is_chosen_on_training_examples_where_there_are_any(tmp_path: Path) -> None:
    made = graph([node("Neg", ["x"], "y", "only")], {"x": ("n", 4)}, {"y": ("n", 4)}, {})
    save_graph(made, tmp_path / "model.onnx")
    judged, training = {"x": np.full((1, 4), 9, np.float32)}, {"x": np.full((1, 4), -7, np.float32)}
    assert Material(tmp_path / "model.onnx", (judged,), (training,)).largest == {"y": 7}
    assert Material(tmp_path / "model.onnx", (judged,), ()).largest == {"y": 9}


def test_static_ranges_need_training_examples(material: Material) -> None:
    bare = Material(material.fp32, material.batches, ())
    with pytest.raises(UserError, match="int8-static needs examples of the training split"):
        derive(Precision.INT8_STATIC, bare, _choice(Precision.INT8_STATIC, material))


def test_the_recipe_of_static_int8_says_what_its_ranges_come_from(material: Material) -> None:
    choice = Choice(material.layers(DERIVATIONS[Precision.INT8_STATIC].kinds), Calibration.ENTROPY)
    arm = _with(material, Options(target=Target.ARM))
    made, recipe = derive(Precision.INT8_STATIC, arm, choice)
    assert (recipe.calibration, recipe.calibration_examples, recipe.target) == ("entropy", 4, "arm")
    types = {
        tensor.data_type
        for tensor in onnx.load_from_string(as_bytes(made)).graph.initializer
        if tensor.name.endswith(".zero_point")
    }
    assert types == {TensorProto.INT8}


def test_the_recipe_of_int4_says_its_block(material: Material) -> None:
    options = Options(block_size=16, accuracy_level=0)
    made, recipe = derive(Precision.INT4, _with(material, options), _choice(Precision.INT4, material))
    assert (recipe.block_size, recipe.accuracy_level) == (16, 0)
    found = [item for item in onnx.load_from_string(as_bytes(made)).graph.node if item.op_type == "MatMulNBits"]
    assert len(found) == 14
    assert {value.i for item in found for value in item.attribute if value.name == "block_size"} == {16}


def test_what_is_known_of_the_layers_is_what_the_file_says(material: Material) -> None:
    model = onnx.load(material.fp32)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert material.weights == sum(array.size for array in arrays if array.dtype == np.float32)
    name, elements = material.elements["bert.encoder.layer.1.intermediate.dense"]
    assert elements == 32 * 64
    assert name in {tensor.name for tensor in model.graph.initializer}
    rows, length = material.batches[0]["input_ids"].shape
    assert material.macs["bert.encoder.layer.0.intermediate.dense"] == rows * length * 32 * 64
    assert material.macs["bert.encoder.layer.1.intermediate.dense"] == rows * 32 * 64  # of one position
    assert material.macs["classifier"] == rows * 32 * 2
    assert set(material.elements) - set(material.macs) == {
        f"bert.embeddings.{name}_embeddings" for name in ("word", "position", "token_type")
    }


def test_a_layer_that_is_not_chosen_stays_fp32(material: Material) -> None:
    layers = _choice(Precision.INT8_DYNAMIC, material).layers
    made, _ = derive(Precision.INT8_DYNAMIC, material, Choice(tuple(name for name in layers if name != "classifier")))
    model = onnx.load_from_string(as_bytes(made))
    left = [item.name for item in model.graph.node if item.name.startswith("classifier/")]
    assert [name.rpartition("/")[2] for name in left if "MatMulInteger" not in name][:1] in (["Gemm"], ["MatMul"])
    assert len([item for item in model.graph.node if item.op_type == "MatMulInteger"]) == 13
