from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from errors import GateFailed
from exporter.clean import strip
from exporter.half import emulate, nodes_to_keep, places, sensitive, to_half, unsupported, weight_range
from exporter.observe import largest_values
from tests.exporter.graphs import Weights, as_bytes, graph, node, operators, random, run, weights_of

FP16, BF16 = onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16
BOTH = pytest.mark.parametrize("dtype", [FP16, BF16], ids=["fp16", "bf16"])
LEAST = np.finfo(np.float32).min
TORCH = {FP16: torch.float16, BF16: torch.bfloat16}


def _copy(model: onnx_ir.Model) -> onnx_ir.Model:
    return onnx_ir.serde.deserialize_model(onnx.load_from_string(as_bytes(model)))


def _emulated(
    model: onnx_ir.Model, dtype: onnx_ir.DataType, keep: set[str], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What a half graph with these nodes in fp32 gives where each half result is rounded."""
    return run(emulate(to_half(_copy(model), dtype, keep), dtype), {"x": x}, level="DISABLE_ALL")[0]


def _types(model: onnx_ir.Model) -> dict[str, int]:
    """The type of each node's first output in the serialised file, by node name, as onnx infers it anew."""
    loaded = onnx.load_from_string(as_bytes(model))
    del loaded.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(loaded, check_type=True, strict_mode=True)
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    return {item.name: types[item.output[0]] for item in loaded.graph.node}


def _overflowing() -> onnx_ir.Model:
    """x · 10³ · 10² then shifted, and down again: values reach some 10⁵ between `up` and `down`."""
    weights: Weights = {
        "thousand": np.float32(1e3),
        "hundred": np.float32(1e2),
        "shift": np.float32(2e3),
        "small": np.float32(1e-5),
        "w": random(8, 8, seed=3),
    }
    nodes = [
        node("Mul", ["x", "thousand"], "a", "start"),
        node("Mul", ["a", "hundred"], "b", "up"),
        node("Add", ["b", "shift"], "c", "across"),
        node("Mul", ["c", "small"], "d", "down"),
        node("MatMul", ["d", "w"], "y", "dense"),
    ]
    return graph(nodes, {"x": ("n", 8)}, {"y": ("n", 8)}, weights)


def _inputs() -> NDArray[np.float32]:
    return np.clip(random(5, 8), -2, 2)


def test_without_care_a_value_above_65504_ruins_the_answer() -> None:
    found = _emulated(_overflowing(), FP16, set(), _inputs())
    assert not np.isfinite(found).all()


def test_exactly_the_nodes_that_touch_such_a_value_are_kept() -> None:
    made, x = _overflowing(), _inputs()
    kept = {item.name: item.why for item in nodes_to_keep(made, largest_values(made, [{"x": x}]))}
    assert set(kept) == {"up", "across", "down"}
    assert kept["up"] == f"b reaches {np.abs(x).max() * 1e5:.3g}"
    (expected,) = run(made, {"x": x})
    found = _emulated(made, FP16, set(kept), x)
    assert np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("left_out", ["up", "across", "down"])
def test_each_of_them_is_needed(left_out: str) -> None:
    found = _emulated(_overflowing(), FP16, {"up", "across", "down"} - {left_out}, _inputs())
    assert not np.isfinite(found).all()


def test_on_a_cpu_the_file_itself_hides_the_overflow() -> None:
    """ONNX Runtime computes it in fp32 and removes the casts, which is why `emulate` is there."""
    made, x = _overflowing(), _inputs()
    (expected,) = run(made, {"x": x})
    hidden = run(to_half(_copy(made), FP16, ()), {"x": x})[0]
    assert np.abs(hidden - expected).max() <= 1e-2 * np.abs(expected).max()


def test_bf16_holds_it_all() -> None:
    made, x = _overflowing(), _inputs()
    (expected,) = run(made, {"x": x})
    assert np.abs(_emulated(made, BF16, set(), x) - expected).max() <= 3e-2 * np.abs(expected).max()


def test_headroom_is_a_factor_of_two() -> None:
    made = graph([node("Neg", ["x"], "y", "only")], {"x": ("n",)}, {"y": ("n",)}, {})
    assert nodes_to_keep(made, {"y": 32751.0}) == ()
    assert [item.name for item in nodes_to_keep(made, {"y": 32753.0})] == ["only"]


def _dense(weight: NDArray[np.float32]) -> onnx_ir.Model:
    return graph([node("MatMul", ["x", "w"], "y", "dense")], {"x": ("n", 3)}, {"y": ("n", 2)}, {"w": weight})


def test_weights_that_fp16_cannot_hold_are_counted_and_keep_their_node() -> None:
    weight = np.array([[1e5, 2.0], [-7e4, 1e-9], [-1e-8, 3.0]], np.float32)
    made = _dense(weight)
    found = weight_range(made)
    half = torch.from_numpy(weight).half().numpy()
    assert found.overflowing == int(np.isinf(half).sum()) == 2
    assert found.vanishing == int(((half == 0) & (weight != 0)).sum()) == 2
    assert [item.name for item in nodes_to_keep(made, {})] == ["dense"]


def test_where_a_weight_starts_to_vanish_and_to_overflow() -> None:
    """Checked against what rounding does: 2⁻²⁵ is the last that becomes 0, 65519 the last that stays finite."""
    weight = np.array([[2.0**-25, 2.0**-24], [2.0**-25 * 1.01, 65504.0], [2.0**-26, 65505.0]], np.float32)
    half = torch.from_numpy(weight).half().numpy()
    found = weight_range(_dense(weight))
    assert found.vanishing == int(((half == 0) & (weight != 0)).sum())
    assert found.overflowing == 1
    assert [item.name for item in nodes_to_keep(_dense(np.full((3, 2), 65504.0, np.float32)), {})] == []


def _attention(*, computed: bool) -> onnx_ir.Model:
    """Softmax over scores with a mask of the least fp32 number: a constant that is chosen, or computed."""
    weights = {"zero": np.float32(0), "one": np.float32(1), "least": LEAST}
    mask = (
        [node("Sub", ["one", "x"], "absent"), node("Mul", ["absent", "least"], "mask")]
        if computed
        else [node("Greater", ["x", "zero"], "seen"), node("Where", ["seen", "zero", "least"], "mask")]
    )
    nodes = [*mask, node("Add", ["scores", "mask"], "masked"), node("Softmax", ["masked"], "y", axis=-1)]
    return graph(nodes, {"x": ("n", 6), "scores": ("n", 6)}, {"y": ("n", 6)}, weights)


@BOTH
@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_masks_saturate_and_a_row_that_is_all_masked_gives_numbers(
    dtype: onnx_ir.DataType, size: float, *, computed: bool
) -> None:
    mask = np.array([[1, 1, 1, 0, 0, 0], [0] * 6, [1] * 6], np.float32)
    batch = {"x": mask, "scores": size * random(3, 6)}
    batch["scores"][1] -= 3 * size  # and its scores all below 0, which must not push the mask to -inf
    made = _attention(computed=computed)
    (expected,) = run(made, batch)
    assert expected[1] == pytest.approx(np.full(6, 1 / 6))
    kept = {item.name for item in nodes_to_keep(made, largest_values(made, [batch]))} if dtype is FP16 else set()
    assert kept == set()  # what only masks is no reason
    found = run(emulate(to_half(made, dtype, kept), dtype), batch, level="DISABLE_ALL")[0]
    assert np.isfinite(found).all()
    assert found[[0, 2]] == pytest.approx(expected[[0, 2]], abs=2e-3 if dtype is FP16 else 0.1)
    assert (found[0, 3:] == 0).all()


@BOTH
def test_places_and_angles_far_in_a_text_are_not_rounded(dtype: onnx_ir.DataType) -> None:
    nodes = [
        node("Cast", ["x"], "count", "count", to=TensorProto.INT64),
        node("Cast", ["count"], "place", "place", to=TensorProto.FLOAT),
        node("Mul", ["place", "speed"], "angle", "angle"),
        node("Cos", ["angle"], "c", "cosine"),
        node("Mul", ["c", "gain"], "y", "after"),
    ]
    made = graph(nodes, {"x": ("n",)}, {"y": ("n",)}, {"speed": np.float32(0.37), "gain": np.float32(1)})
    x = np.array([3, 4001, 8189], np.float32)
    kept = {item.name for item in places(made)}
    assert kept == {"count", "place", "angle", "cosine"}
    assert _emulated(made, dtype, kept, x) == pytest.approx(np.cos(0.37 * x), abs=1e-2)
    assert np.abs(_emulated(made, dtype, set(), x) - np.cos(0.37 * x)).max() > 0.1


@BOTH
def test_inputs_and_outputs_that_are_states_become_half(dtype: onnx_ir.DataType) -> None:
    """Whether their node does or not."""
    nodes = [node("Add", ["x", "past"], "present", "add"), node("Neg", ["present"], "y", "last")]
    made = graph(nodes, {"x": ("n",), "past": ("n",)}, {"present": ("n",), "y": ("n",)}, {})
    for keep in ((), ("add",)):
        found = onnx.load_from_string(as_bytes(to_half(_copy(made), dtype, keep, ("past", "present"))))
        types = {item.name: item.type.tensor_type.elem_type for item in (*found.graph.input, *found.graph.output)}
        assert types == {"x": TensorProto.FLOAT, "past": dtype, "present": dtype, "y": TensorProto.FLOAT}
    emulated = emulate(to_half(made, dtype, (), ("past", "present")), dtype)
    batch = {"x": np.array([1.0], np.float32), "past": np.array([0.001], np.float32)}
    present, negative = run(emulated, batch, level="DISABLE_ALL")
    assert present.tolist() == torch.tensor([1.001]).to(TORCH[dtype]).tolist() == (-negative).tolist()


@BOTH
def test_inputs_and_outputs_stay_fp32_and_casts_stand_only_at_borders(dtype: onnx_ir.DataType) -> None:
    made = _overflowing()
    to_half(made, dtype, {"across"})
    model = onnx.load_from_string(as_bytes(made))
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]
    types = _types(made)
    assert {name: types[name] for name in ("start", "up", "across", "down", "dense")} == {
        name: 1 if name == "across" else int(dtype) for name in ("start", "up", "across", "down", "dense")
    }
    # into the first node, out of and into the one between, and out of the last
    assert operators(made) == ["Cast", "Mul", "Mul", "Cast", "Add", "Cast", "Mul", "MatMul", "Cast"]


def test_a_value_that_several_read_is_cast_once() -> None:
    nodes = [node("MatMul", ["x", name], name.upper(), f"{name}/MatMul") for name in "qkv"]
    made = graph(nodes, {"x": ("n", 4)}, dict.fromkeys("QKV", ("n", 4)), {name: random(4, 4) for name in "qkv"})
    to_half(made, FP16, ())
    assert operators(made).count("Cast") == 1 + 3


def test_a_layer_normalisation_is_computed_on_half_numbers() -> None:
    """Its other two outputs, which no graph here has, may not be fp16; that is no reason."""
    made = graph(
        [
            node("MatMul", ["x", "w"], "h", "dense"),
            node("LayerNormalization", ["h", "gain", "shift"], "l", "norm"),
            node("MatMul", ["l", "w"], "y", "out"),
        ],
        {"x": ("n", 8)},
        {"y": ("n", 8)},
        {"w": random(8, 8), "gain": random(8), "shift": random(8)},
    )
    x = random(4, 8, seed=5)
    (expected,) = run(made, {"x": x})
    to_half(made, FP16, ())
    assert operators(made) == ["Cast", "MatMul", "LayerNormalization", "MatMul", "Cast"]
    assert _types(made)["norm"] == TensorProto.FLOAT16
    assert {array.dtype for array in weights_of(made).values()} == {np.dtype(np.float16)}
    assert run(emulate(made, FP16), {"x": x})[0] == pytest.approx(expected, abs=0.02 * float(np.abs(expected).max()))


def test_outputs_that_nothing_reads_do_not_matter() -> None:
    norm = helper.make_node("LayerNormalization", ["x", "gain"], ["y", "mean", "deviation"], name="norm")
    made = graph([norm], {"x": (2, 8)}, {"y": (2, 8)}, {"gain": random(8)})
    (expected,) = run(made, {"x": random(2, 8)})
    strip(to_half(made, FP16, ()))
    assert _types(made)["norm"] == TensorProto.FLOAT16
    assert run(made, {"x": random(2, 8)})[0] == pytest.approx(expected, abs=1e-2)
    assert run(emulate(made, FP16), {"x": random(2, 8)})[0] == pytest.approx(expected, abs=1e-2)


def test_a_layer_normalisation_whose_mean_is_read_stays_fp32() -> None:
    norm = helper.make_node("LayerNormalization", ["x", "gain"], ["l", "mean"], name="norm")
    made = graph([norm, node("Add", ["l", "mean"], "y")], {"x": (2, 8)}, {"y": (2, 8)}, {"gain": random(8)})
    to_half(made, FP16, ())
    assert _types(made)["norm"] == TensorProto.FLOAT
    assert run(made, {"x": random(2, 8)})[0].shape == (2, 8)


@BOTH
def test_an_operator_that_takes_no_such_numbers_stays_fp32(dtype: onnx_ir.DataType) -> None:
    """`Elu` of opset 20 takes fp16 and not bf16, as its schema says."""
    nodes = [node("Neg", ["x"], "a"), node("Elu", ["a"], "b", "elu"), node("Neg", ["b"], "y")]
    made = to_half(graph(nodes, {"x": ("n",)}, {"y": ("n",)}, {}), dtype, ())
    assert _types(made)["elu"] == (TensorProto.FLOAT16 if dtype is FP16 else TensorProto.FLOAT)


def test_operators_that_take_no_such_numbers_are_named_with_their_count() -> None:
    nodes = [node("Elu", ["x"], "a"), node("Elu", ["a"], "b"), node("Neg", ["b"], "c"), node("Shape", ["c"], "y0")]
    nodes.append(node("Cast", ["y0"], "y", to=TensorProto.FLOAT))
    made = graph(nodes, {"x": ("n",)}, {"y": (1,)}, {})
    assert [(item.name, item.why) for item in unsupported(made, BF16)] == [
        ("2 Elu", "it is not computed in bfloat16 (opset 20)")
    ]
    assert unsupported(made, FP16) == ()


@pytest.mark.parametrize("operator", ["Less", "Pow", "Pad"])
def test_what_has_no_bf16_kernel_anywhere_reads_fp32(operator: str) -> None:
    """onnxruntime-gpu 1.31.1 refused a whole graph for one such node; the schemas of all three allow bf16."""
    second: dict[str, NDArray[np.generic]] = {
        "Less": np.array(0, np.float32),
        "Pow": np.array(2, np.float32),
        "Pad": np.array([0, 1]),
    }
    nodes = [node("Neg", ["x"], "a"), node(operator, ["a", "b"], "c", "alone")]
    nodes.append(node("Cast", ["c"], "y", to=TensorProto.FLOAT))
    made = graph(nodes, {"x": ("n",)}, {"y": ("m",)}, {"b": second[operator]})
    (expected,) = run(made, {"x": random(7)})
    fp16, bf16 = to_half(_copy(made), FP16, ()), to_half(made, BF16, ())
    read = [[item.inputs[0] for item in which.graph if item.name == "alone"] for which in (fp16, bf16)]
    assert [value.dtype for (value,) in read if value is not None] == [FP16, onnx_ir.DataType.FLOAT]
    assert run(emulate(bf16, BF16), {"x": random(7)})[0] == pytest.approx(expected, abs=0.05)


def test_the_scales_of_a_resize_stay_fp32() -> None:
    nodes = [node("Relu", ["x"], "r"), node("Resize", ["r", "", "scales"], "y", "up", mode="nearest")]
    scales = np.array([1, 1, 2, 2], np.float32)
    made = graph(nodes, {"x": (1, 2, 3, 3)}, {"y": (1, 2, 6, 6)}, {"scales": scales})
    x = random(1, 2, 3, 3)
    (expected,) = run(made, {"x": x})
    to_half(made, FP16, ())
    assert _types(made)["up"] == TensorProto.FLOAT16
    assert weights_of(made)["scales"].dtype == np.float32
    assert run(made, {"x": x})[0] == pytest.approx(expected, abs=2e-3)


@BOTH
def test_scalars_stay_scalars(dtype: onnx_ir.DataType) -> None:
    """`Clip`, as ReLU6 is traced, refuses limits that are arrays of one number."""
    made = graph(
        [node("Clip", ["x", "low", "high"], "y")],
        {"x": ("n",)},
        {"y": ("n",)},
        {"low": np.float32(0), "high": np.float32(6)},
    )
    to_half(made, dtype, ())
    assert {array.shape for array in weights_of(made).values()} == {()}
    x = np.array([-1, 2, 9], np.float32)
    assert run(emulate(made, dtype), {"x": x})[0].tolist() == [0, 2, 6]


def test_half_graphs_with_scalars_load_as_they_are() -> None:
    nodes = [node("Clip", ["x", "low", "high"], "y")]
    made = graph(nodes, {"x": ("n",)}, {"y": ("n",)}, {"low": np.float32(0), "high": np.float32(6)})
    assert run(to_half(made, FP16, ()), {"x": np.array([-1, 2, 9], np.float32)})[0].tolist() == [0, 2, 6]


CONSTANTS: dict[str, list[onnx.NodeProto]] = {
    "value": [node("Constant", [], "c", value=helper.make_tensor("c", TensorProto.FLOAT, [1], [0.1]))],
    "value_float": [node("Constant", [], "c", value_float=0.1)],
    "value_floats": [node("Constant", [], "c", value_floats=[0.1, 0.2, 0.3])],
    "filled": [node("ConstantOfShape", ["size"], "c", value=helper.make_tensor("c", TensorProto.FLOAT, [1], [0.1]))],
    "filled with zeros": [node("ConstantOfShape", ["size"], "c")],
    "eye": [node("ConstantOfShape", ["square"], "z"), node("EyeLike", ["z"], "c", dtype=TensorProto.FLOAT)],
    "cast": [node("Cast", ["size"], "c", to=TensorProto.FLOAT)],
}


SIZES = {"size": np.array([3]), "square": np.array([3, 3])}


@pytest.mark.parametrize("nodes", CONSTANTS.values(), ids=CONSTANTS)
def test_numbers_made_inside_the_graph_become_half_too(nodes: list[onnx.NodeProto]) -> None:
    made = graph([*nodes, node("Add", ["x", "c"], "y", "sum")], {"x": ("n", 3)}, {"y": ("n", 3)}, SIZES)
    x = random(3, 3)
    (expected,) = run(made, {"x": x})
    to_half(made, FP16, ())
    assert _types(made)["sum"] == TensorProto.FLOAT16
    assert run(made, {"x": x})[0] == pytest.approx(expected, abs=4e-3)


@BOTH
def test_emulation_rounds_each_result_as_torch_does(dtype: onnx_ir.DataType) -> None:
    made = graph(
        [node("Mul", ["x", "w"], "a"), node("Add", ["a", "w"], "y")],
        {"x": ("n", 64)},
        {"y": ("n", 64)},
        {"w": random(64)},
    )
    x = random(50, 64, seed=1)
    half_x, half_w = torch.from_numpy(x).to(TORCH[dtype]), torch.from_numpy(random(64)).to(TORCH[dtype])
    expected = (half_x * half_w + half_w).float().numpy()
    found = run(emulate(to_half(made, dtype, ()), dtype), {"x": x}, level="DISABLE_ALL")[0]
    assert (found == expected).all()
    assert (found != x * random(64) + random(64)).mean() > 0.9


def test_emulation_holds_sums_in_fp32_and_rounds_the_result() -> None:
    weight, x = np.ones((4096, 1), np.float32), np.ones((1, 4096), np.float32)
    weight[1:] = 2.0**-12  # in fp16 each would vanish beside 1
    made = graph([node("MatMul", ["x", "w"], "y")], {"x": (1, 4096)}, {"y": (1, 1)}, {"w": weight})
    found = run(emulate(to_half(made, FP16, ()), FP16), {"x": x}, level="DISABLE_ALL")[0]
    assert float(found[0, 0]) == float(np.float16(1 + 4095 * 2.0**-12))


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_ALL"])
def test_no_optimisation_removes_the_emulated_rounding(level: str) -> None:
    x = _inputs()
    made = emulate(to_half(_overflowing(), FP16, ()), FP16)
    assert not np.isfinite(run(made, {"x": x}, level=level)[0]).all()


def test_weights_are_rounded_to_nearest() -> None:
    weight = random(3, 2)
    for dtype, kind in ((FP16, np.float16), (BF16, ml_dtypes.bfloat16)):
        stored = weights_of(to_half(_dense(weight), dtype, ()))
        (half,) = stored.values()
        assert half.astype(np.float32).tolist() == weight.astype(kind).astype(np.float32).tolist()


def test_a_weight_that_both_sides_read_is_stored_for_each() -> None:
    nodes = [node("MatMul", ["x", "w"], "a", "kept"), node("MatMul", ["a", "w"], "y", "half")]
    made = graph(nodes, {"x": ("n", 4)}, {"y": ("n", 4)}, {"w": random(4, 4)})
    x = random(3, 4, seed=1)
    (expected,) = run(made, {"x": x})
    to_half(made, FP16, {"kept"})
    assert sorted(str(array.dtype) for array in weights_of(made).values()) == ["float16", "float32"]
    assert run(made, {"x": x})[0] == pytest.approx(expected, abs=0.02)
    kept = next(item for item in onnx.load_from_string(as_bytes(made)).graph.node if item.name == "kept")
    assert (weights_of(made)[kept.input[1]] == random(4, 4)).all()


def _branching() -> onnx_ir.Model:
    def branch(op: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(op, TensorProto.FLOAT, ["n"])
        return helper.make_graph([node(op, ["x"], op)], op, [], [output])

    made = node("If", ["flag"], "y", then_branch=branch("Neg"), else_branch=branch("Abs"))
    return graph([made], {"x": ("n",), "flag": ("bool", ())}, {"y": ("n",)}, {})


@BOTH
def test_a_graph_with_branches_is_refused(dtype: onnx_ir.DataType) -> None:
    with pytest.raises(GateFailed, match="branches or loops"):
        to_half(_branching(), dtype, ())


def test_an_output_that_another_node_reads_is_cast_once_more_and_only_for_the_outside() -> None:
    nodes = [node("Neg", ["x"], "a", "first"), node("Abs", ["a"], "y", "second")]
    made = graph(nodes, {"x": ("n",)}, {"a": ("n",), "y": ("n",)}, {})
    to_half(made, FP16, ())
    types = _types(made)
    assert (types["first"], types["second"]) == (TensorProto.FLOAT16, TensorProto.FLOAT16)
    found = run(made, {"x": np.array([1.0, -2.0], np.float32)})
    assert [array.dtype for array in found] == [np.float32, np.float32]
    assert [array.tolist() for array in found] == [[-1, 2], [1, 2]]


Change = Callable[[onnx_ir.Model], onnx_ir.Model]


@BOTH
def test_the_same_graph_gives_the_same_bytes(dtype: onnx_ir.DataType) -> None:
    change: Change = lambda model: to_half(model, dtype, {"across"})  # noqa: E731
    assert as_bytes(change(_overflowing())) == as_bytes(change(_overflowing()))


def test_norms_and_what_gives_an_output_are_sensitive() -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["normed"], name="norm"),
        helper.make_node("MatMul", ["normed", "weight"], ["inner"], name="inner"),
        helper.make_node("MatMul", ["inner", "weight"], ["y"], name="last"),
    ]
    weights = {"gain": np.ones(4, np.float32), "weight": np.eye(4, dtype=np.float32)}
    built = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx_ir.from_proto(helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)]))
    assert [item.name for item in sensitive(model)] == ["norm", "last"]
