from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from exporter.integer import Range, int8_dynamic, int8_static, quantize_columns
from exporter.options import Target, Weights
from tests.cpu import EXACT
from tests.exporter.graphs import (
    as_bytes,
    graph,
    node,
    operators,
    product,
    random,
    run,
    running_operators,
    weights_of,
)

DENSE = {"dense"}


def _rounded(x: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """To uint8 and back by the formulas of QuantizeLinear and DequantizeLinear in ONNX's documentation."""
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    whole = np.clip(np.rint(x / scale) + zero, 0, 255)
    return np.asarray((whole - zero) * np.float64(scale))


def _columns(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """A weight rounded to 255 steps for each output, by hand."""
    step = np.abs(weight).max(axis=0).astype(np.float64) / 127
    return np.asarray(np.rint(weight / step) * step)


def test_columns_by_hand() -> None:
    whole, scale = quantize_columns(np.array([[127.0, 0.5, 0], [-63.4, -1, 0], [0.6, 0.25, 0]], np.float32))
    assert whole.dtype == np.int8
    assert scale == pytest.approx([1, 1 / 127, 1])  # nothing to scale in the third: any scale does, but 0
    assert whole.T.tolist() == [[127, -63, 1], [64, -127, 32], [0, 0, 0]]


@pytest.mark.parametrize("limit", [127, 63])
def test_a_column_is_off_by_half_a_step_at_most(limit: int) -> None:
    weight = random(200, 30) * np.logspace(-4, 4, 30, dtype=np.float32)
    whole, scale = quantize_columns(weight, limit)
    assert scale.shape == (30,)
    assert np.abs(whole.astype(int)).max(axis=0).tolist() == [limit] * 30
    assert (np.abs(whole * scale.astype(np.float64) - weight) <= 0.5001 * scale).all()


@EXACT
def test_dynamic_is_near_fp32_and_exactly_what_the_formulas_say() -> None:
    weight, x = random(40, 12), random(5, 40, seed=1)
    (found,) = run(int8_dynamic(product(weight), DENSE), {"x": x})
    expected = _rounded(x, float(x.min()), float(x.max())) @ _columns(weight)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert 0 < np.abs(found - x @ weight).max() < 0.03 * np.abs(x @ weight).max()


def test_dynamic_is_fused_into_one_integer_kernel(tmp_path: Path) -> None:
    made = _gemm()
    ran = running_operators(int8_dynamic(made, {"gemm"}), tmp_path)
    assert ran == ["DynamicQuantizeMatMul"]  # bias and all


@EXACT
def test_two_layers_on_one_input_round_it_once(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", name], name.upper(), f"{name}/MatMul") for name in ("q", "k", "v")]
    weights = {name: random(8, 6, seed=seed) for seed, name in enumerate("qkv")}
    made = graph(nodes, {"x": ("n", 8)}, dict.fromkeys("QKV", ("n", 6)), weights)
    int8_dynamic(made, set("qkv"))
    assert operators(made).count("DynamicQuantizeLinear") == 1
    ran = running_operators(made, tmp_path)
    assert ran.count("MatMulIntegerToFloat") == 3
    x = random(4, 8, seed=9)
    for found, name in zip(run(made, {"x": x}), "qkv", strict=True):
        assert np.abs(found - x @ weights[name]).max() < 0.1


def test_dynamic_is_onnxruntimes_own_but_for_rounding(tmp_path: Path) -> None:
    """`quantize_dynamic` divides by 127.5 and rounds to another lattice, so that each may be half a step off."""
    weight, x = random(64, 16), random(7, 64, seed=1)
    made = product(weight)
    (tmp_path / "fp32.onnx").write_bytes(as_bytes(made))
    quantize_dynamic(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8)
    (theirs,) = run(tmp_path / "int8.onnx", {"x": x})
    (mine,) = run(int8_dynamic(made, DENSE), {"x": x})
    exact = x.astype(np.float64) @ weight
    assert np.abs(mine - theirs).max() < 0.02 * np.abs(exact).max()
    assert np.abs(mine - exact).mean() < 1.1 * np.abs(theirs - exact).mean()


def _gemm(*, transposed: bool = True) -> onnx_ir.Model:
    weights = {"w": random(6, 10) if transposed else random(10, 6), "b": 50 + random(6, seed=2)}
    made = node("Gemm", ["x", "w", "b"], "y", "gemm/Gemm", transB=int(transposed))
    return graph([made], {"x": ("n", 10)}, {"y": ("n", 6)}, weights)


@EXACT
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("static", [True, False])
def test_a_gemms_bias_is_added_in_fp32(*, transposed: bool, static: bool) -> None:
    made, x = _gemm(transposed=transposed), random(3, 10, seed=1)
    (expected,) = run(made, {"x": x})
    if static:
        int8_static(made, {"gemm"}, {"x": Range(float(x.min()), float(x.max()))})
    else:
        int8_dynamic(made, {"gemm"})
    (found,) = run(made, {"x": x})
    assert np.abs(found - expected).max() < 0.15  # the bias is 50, and its int8 step would be 0.4
    assert (weights_of(made)["b"] == 50 + random(6, seed=2)).all()


def _lookup(table: NDArray[np.float32]) -> onnx_ir.Model:
    made = node("Gather", ["table", "ids"], "y", "words/Gather")
    return graph([made], {"ids": ("int64", ("n", "s"))}, {"y": ("n", "s", table.shape[1])}, {"table": table})


@pytest.mark.parametrize("limited", [Target.X86, Target.X86_WITHOUT_VNNI])
def test_each_row_of_a_table_has_its_own_scale(limited: Target) -> None:
    table = random(9, 16)
    table[4] *= 1e6
    ids = np.array([[0, 4, 8], [1, 1, 7]])
    made = int8_dynamic(_lookup(table), {"words"}, limited)
    (found,) = run(made, {"ids": ids})
    expected = _columns(table.T).T[ids]
    assert found == pytest.approx(expected, rel=1e-6)
    others = ids != 4
    assert np.abs(found - table[ids])[others].max() <= 0.51 * np.abs(table[ids])[others].max() / 127
    stored = weights_of(made)
    assert stored["table.int8"].dtype == np.int8
    assert stored["table.int8"].shape == (9, 16)
    assert "table" not in stored


def _two_layers() -> tuple[onnx_ir.Model, dict[str, NDArray[np.float32]]]:
    weights = {"w1": random(8, 6), "w2": random(6, 4, seed=1)}
    nodes = [
        node("MatMul", ["x", "w1"], "h", "first/MatMul"),
        node("Relu", ["h"], "r"),
        node("MatMul", ["r", "w2"], "y", "second/MatMul"),
    ]
    return graph(nodes, {"x": ("n", 8)}, {"y": ("n", 4)}, weights), weights


@EXACT
def test_layers_that_are_not_named_stay_as_they_are() -> None:
    made, weights = _two_layers()
    int8_dynamic(made, {"second"})
    stored = weights_of(made)
    assert (stored["w1"] == weights["w1"]).all()
    assert {name: array.dtype for name, array in stored.items() if name != "w1"} == {
        "w2.int8": np.dtype(np.int8),
        "w2.scale": np.dtype(np.float32),
        "w2.zero_point": np.dtype(np.int8),
    }
    x = random(3, 8, seed=3)
    hidden = np.maximum(x @ weights["w1"], 0)
    expected = _rounded(hidden, 0, float(hidden.max())) @ _columns(weights["w2"])
    assert run(made, {"x": x})[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_nothing_named_changes_nothing() -> None:
    made, _ = _two_layers()
    before = as_bytes(made)
    assert as_bytes(int8_dynamic(made, ())) == before
    assert as_bytes(int8_static(made, (), {})) == before


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert as_bytes(int8_dynamic(_two_layers()[0], {"first", "second"})) == as_bytes(
        int8_dynamic(_two_layers()[0], {"second", "first"})
    )


def test_static_is_exactly_what_the_formulas_say(tmp_path: Path) -> None:
    weight, x = random(24, 8), random(6, 24, seed=1)
    made = int8_static(product(weight), DENSE, {"x": Range(-1.5, 2.25)})
    expected = _rounded(x, -1.5, 2.25) @ _columns(weight)
    assert np.abs(x).max() > 2.25  # so that something is clipped
    assert run(made, {"x": x})[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert operators(made) == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"]
    assert running_operators(made, tmp_path)[-1] in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")


@EXACT
@pytest.mark.parametrize("span", [(0.7, 3.1), (-3.1, -0.7), (-0.123, 0.457), (0.0, 0.0), (-1e-30, 0.0)])
@pytest.mark.parametrize("target", list(Target))
def test_zero_is_exact_in_every_range(span: tuple[float, float], target: Target) -> None:
    """Padding is 0, and what is rounded away from it would leak into every sum."""
    made = int8_static(product(random(4, 3)), DENSE, {"x": Range(*span)}, target)
    assert (run(made, {"x": np.zeros((2, 4), np.float32)})[0] == 0).all()
    assert (run(made, {"x": np.zeros((2, 4), np.float32)}, level="DISABLE_ALL")[0] == 0).all()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (2.0, 3.0), (-3.0, -2.0)])
def test_both_ends_of_a_range_survive(low: float, high: float) -> None:
    """Also of one that 0 lies outside of."""
    made = int8_static(product(np.eye(2, dtype=np.float32)), DENSE, {"x": Range(low, high)})
    found = run(made, {"x": np.array([[low, high], [-9.0, 9.0]], np.float32)})[0]
    assert found == pytest.approx(np.array([[low, high], [min(low, 0), max(high, 0)]]), abs=4 / 255 / 2)


def _conv(weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None, **attributes: Any) -> onnx_ir.Model:
    weights = {"w": weight} | ({} if bias is None else {"b": bias})
    made = node("Conv", ["x", *weights], "y", "conv/Conv", **attributes)
    channels = weight.shape[1] * int(attributes.get("group", 1))
    return graph([made], {"x": ("n", channels, "h", "w_")}, {"y": ("n", weight.shape[0], "a", "b_")}, weights)


CONVOLUTIONS = {
    "plain": {},
    "stride": {"strides": [2, 2]},
    "padding": {"pads": [1, 0, 2, 1]},
    "groups": {"group": 2},
    "dilated": {"dilations": [2, 1]},
}


@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("biased", [True, False])
def test_static_convolutions_are_near_fp32(attributes: dict[str, Any], target: Target, *, biased: bool) -> None:
    weight = random(6, 4 // attributes.get("group", 1), 3, 3) * np.logspace(-2, 2, 6, dtype=np.float32).reshape(
        -1, 1, 1, 1
    )
    bias = np.logspace(-1, 2, 6, dtype=np.float32) if biased else None
    x = random(2, 4, 9, 8, seed=1)
    made = _conv(weight, bias, **attributes)
    (expected,) = run(made, {"x": x})
    int8_static(made, {"conv"}, {"x": Range(float(x.min()), float(x.max()))}, target)
    found = run(made, {"x": x})[0]
    worst = np.abs(found - expected).max(axis=(0, 2, 3)) / np.abs(expected).max(axis=(0, 2, 3))
    assert worst.max() < 0.04  # each filter by its own size: a scale for each
    assert weights_of(made)["w.int8"].dtype == np.int8
    if biased:
        assert weights_of(made)["b.int8"].dtype == np.int32


def test_a_bias_far_above_its_filter_is_kept() -> None:
    """A filter that batch normalisation has all but switched off: its bias is 1e13 of its steps."""
    weight = random(3, 2, 3, 3)
    weight[1] *= 1e-13
    bias = np.array([1.0, 5.0, -2.0], np.float32)
    x = random(2, 2, 6, 6, seed=1)
    made = _conv(weight, bias)
    (expected,) = run(made, {"x": x})
    int8_static(made, {"conv"}, {"x": Range(float(x.min()), float(x.max()))})
    assert run(made, {"x": x})[0] == pytest.approx(expected, abs=0.15)


def test_for_arm_activations_are_signed_and_symmetric() -> None:
    made = int8_static(product(random(5, 3)), DENSE, {"x": Range(-2.54, 1.0)}, Target.ARM)
    stored = weights_of(made)
    assert (stored["x.zero_point"].dtype, int(stored["x.zero_point"])) == (np.dtype(np.int8), 0)
    assert float(stored["x.scale"]) == pytest.approx(0.02)
    other = weights_of(int8_static(product(random(5, 3)), DENSE, {"x": Range(-2.55, 0.0)}))
    assert (other["x.zero_point"].dtype, int(other["x.zero_point"])) == (np.dtype(np.uint8), 255)
    assert float(other["x.scale"]) == pytest.approx(0.01)


@pytest.mark.parametrize(("target", "limit"), [(Target.X86, 127), (Target.X86_WITHOUT_VNNI, 63), (Target.ARM, 127)])
def test_weights_keep_within_what_the_target_can_add(target: Target, limit: int) -> None:
    weight = random(30, 20)
    for made in (
        int8_dynamic(product(weight), DENSE, target),
        int8_static(product(weight), DENSE, {"x": Range(-1, 1)}, target),
    ):
        whole = weights_of(made)["w.int8"]
        assert np.abs(whole.astype(int)).max() == limit
    pair = 2 * 255 * limit  # what a pmaddubsw adds up in 16 bits
    assert (pair <= np.iinfo(np.int16).max) == (target is Target.X86_WITHOUT_VNNI)


@EXACT
@pytest.mark.parametrize("is_static", [False, True])
def test_unsigned_weights_are_the_same_numbers_shifted(*, is_static: bool) -> None:
    weight, x = random(30, 20), random(4, 30, seed=1)
    answers, stored = [], []
    for weights in Weights:
        made = product(weight)
        if is_static:
            int8_static(made, DENSE, {"x": Range(float(x.min()), float(x.max()))}, weights=weights)
        else:
            int8_dynamic(made, DENSE, weights=weights)
        stored.append(weights_of(made))
        answers.append(run(made, {"x": x})[0])
    signed, unsigned = stored
    assert (signed["w.int8"].dtype, unsigned["w.int8"].dtype) == (np.dtype(np.int8), np.dtype(np.uint8))
    np.testing.assert_array_equal(unsigned["w.int8"].astype(int) - 128, signed["w.int8"])
    assert set(unsigned["w.zero_point"].tolist()) == {128}
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", list(Weights))
def test_a_convolutions_weights_are_stored_as_asked(weights: Weights) -> None:
    made = graph(
        [node("Conv", ["x", "w"], "y", "conv/Conv")],
        {"x": (1, 3, 6, 6)},
        {"y": (1, 4, 4, 4)},
        {"w": random(4, 3, 3, 3)},
    )
    x = random(1, 3, 6, 6, seed=1)
    (expected,) = run(made, {"x": x})
    int8_static(made, {"conv"}, {"x": Range(float(x.min()), float(x.max()))}, weights=weights)
    expected_type = np.int8 if weights is Weights.SIGNED else np.uint8
    assert weights_of(made)["w.int8"].dtype == np.dtype(expected_type)
    assert np.abs(run(made, {"x": x})[0] - expected).max() < 0.05 * np.abs(expected).max()


def test_a_graph_that_is_quantised_passes_onnxs_checker() -> None:
    made, _ = _two_layers()
    int8_static(made, {"first", "second"}, {"x": Range(-3, 3), "r": Range(0, 9)})
    onnx.checker.check_model(onnx.load_from_string(as_bytes(made)), full_check=True)
    names = [item.name for item in onnx.load_from_string(as_bytes(made)).graph.node]
    assert len(set(names)) == len(names)


def test_layers_that_share_an_input_share_its_rounding() -> None:
    nodes = [node("MatMul", ["x", name], name.upper(), f"{name}/MatMul") for name in "ab"]
    made = graph(nodes, {"x": ("n", 4)}, {"A": ("n", 4), "B": ("n", 4)}, {"a": random(4, 4), "b": random(4, 4)})
    int8_static(made, {"a", "b"}, {"x": Range(-1, 1)})
    assert operators(made).count("QuantizeLinear") == 1
