import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from exporter.four_bit import int4, quantize_blocks
from tests.exporter.graphs import as_bytes, graph, node, product, random, run, weights_of

BLOCKS = [16, 32, 128]


def _unpacked(packed: NDArray[np.uint8], scales: NDArray[np.float32], inputs: int) -> NDArray[np.float64]:
    """The weight (inputs, outputs) that MatMulNBits' documentation says these bytes stand for."""
    outputs, blocks, half = packed.shape
    whole = np.stack([packed & 15, packed >> 4], axis=-1).reshape(outputs, blocks, 2 * half).astype(np.float64)
    return np.asarray(((whole - 8) * scales.reshape(outputs, blocks, 1)).reshape(outputs, -1)[:, :inputs].T)


def _onnxruntimes(weight: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """What ONNX Runtime's own quantizer makes of a weight."""
    model = onnx.load_from_string(as_bytes(product(weight)))
    quantizer = MatMulNBitsQuantizer(model, block_size=block, is_symmetric=True)
    quantizer.process()
    tensors = [numpy_helper.to_array(tensor) for tensor in quantizer.model.model.graph.initializer]
    packed = next(tensor for tensor in tensors if tensor.dtype == np.uint8)
    return packed, next(tensor for tensor in tensors if tensor.dtype == np.float32)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("inputs", [128, 40, 15])
def test_blocks_are_onnxruntimes_own(block: int, inputs: int) -> None:
    weight = random(inputs, 24, seed=inputs) * np.logspace(-3, 3, 24, dtype=np.float32)
    packed, scales = quantize_blocks(weight, block)
    theirs, their_scales = _onnxruntimes(weight, block)
    assert packed.shape == theirs.shape == (24, -(-inputs // block), block // 2)
    assert scales == pytest.approx(their_scales.ravel(), rel=1e-6)
    found, expected = _unpacked(packed, scales, inputs), _unpacked(theirs, their_scales, inputs)
    steps = np.repeat(np.abs(scales).reshape(24, -1), block, axis=1)[:, :inputs].T
    apart = np.abs(found - expected) / steps
    assert (apart > 0.01).mean() < 0.01  # numbers half-way between two steps may go either way
    assert apart.max() < 1.01


def test_a_block_by_hand() -> None:
    weight = np.zeros((16, 2), np.float32)
    weight[:4, 0] = [-4, 2, 0.3, 3.9]  # the scale is 0.5, and 3.9 is 7 steps at most
    weight[:3, 1] = [8, -6.4, 1]  # the greatest is positive: the scale is -1
    packed, scales = quantize_blocks(weight, 16)
    assert scales.tolist() == [0.5, -1.0]
    assert packed[0, 0, :2].tolist() == [0 | 12 << 4, 9 | 15 << 4]
    assert packed[1, 0, :2].tolist() == [0 | 14 << 4, 7 | 8 << 4]
    assert (packed[:, 0, 2:] == 8 | 8 << 4).all()


def test_a_block_of_zeros_is_zero() -> None:
    weight = random(64, 3)
    weight[32:] = 0
    packed, scales = quantize_blocks(weight, 32)
    assert (_unpacked(packed, scales, 64)[32:] == 0).all()
    assert scales.reshape(3, 2)[:, 1].tolist() == [0, 0, 0]
    found = run(int4(product(weight), {"dense"}, accuracy_level=0), {"x": np.eye(64, dtype=np.float32)})[0]
    assert np.isfinite(found).all()
    assert (found[32:] == 0).all()


@pytest.mark.parametrize("inputs", [128, 40])
def test_each_weight_is_off_by_a_step_at_most_and_half_a_step_but_at_the_short_end(inputs: int) -> None:
    weight = random(inputs, 7)
    packed, scales = quantize_blocks(weight, 32)
    steps = np.repeat(np.abs(scales).reshape(7, -1), 32, axis=1)[:, :inputs].T
    off = np.abs(_unpacked(packed, scales, inputs) - weight) / steps
    assert off.max() <= 1.0001
    assert (off > 0.5001).mean() < 0.05  # only what lies beyond 7 steps opposite the greatest


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("inputs", [256, 72])
def test_the_graph_multiplies_by_what_the_bytes_stand_for(block: int, inputs: int) -> None:
    weight, x = random(inputs, 10), random(5, inputs, seed=1)
    made = int4(product(weight), {"dense"}, block=block, accuracy_level=0)
    expected = x @ _unpacked(*quantize_blocks(weight, block), inputs)
    assert run(made, {"x": x})[0] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert np.abs(expected - x @ weight).max() > 0.1  # which the weight itself would not give


def _gemm() -> tuple[onnx_ir.Model, dict[str, NDArray[np.float32]]]:
    weights = {"w": random(6, 64), "b": 50 + random(6, seed=2)}
    made = node("Gemm", ["x", "w", "b"], "y", "gemm/Gemm", transB=1)
    return graph([made], {"x": ("n", 64)}, {"y": ("n", 6)}, weights), weights


def test_a_gemms_bias_is_added_in_fp32() -> None:
    made, weights = _gemm()
    x = random(3, 64, seed=1)
    int4(made, {"gemm"}, accuracy_level=0)
    expected = x @ _unpacked(*quantize_blocks(weights["w"].T, 32), 64) + weights["b"]
    assert run(made, {"x": x})[0] == pytest.approx(expected, rel=1e-4)
    stored = weights_of(made)
    assert (stored["b"] == weights["b"]).all()
    assert "w" not in stored


@pytest.mark.parametrize("level", [0, 4])
def test_the_accuracy_level_and_the_block_stand_in_the_node(level: int) -> None:
    made, _ = _gemm()
    int4(made, {"gemm"}, block=16, accuracy_level=level)
    model = onnx.load_from_string(as_bytes(made))
    (found,) = [item for item in model.graph.node if item.op_type == "MatMulNBits"]
    values = {item.name: item.i for item in found.attribute}
    assert values == {"K": 64, "N": 6, "bits": 4, "block_size": 16, "accuracy_level": level}
    assert {item.domain for item in model.opset_import} == {"", "com.microsoft"}


def test_level_4_rounds_activations_and_level_0_does_not() -> None:
    """With an activation far above the others, int8 loses these and fp32 does not."""
    weight, x = random(64, 8), np.full((1, 64), 0.01, np.float32)
    x[0, 0] = 100
    exact = x @ _unpacked(*quantize_blocks(weight, 32), 64)
    levels = {level: run(int4(product(weight), {"dense"}, accuracy_level=level), {"x": x})[0] for level in (0, 4)}
    errors = {level: float(np.abs(found - exact).max()) for level, found in levels.items()}
    assert errors[0] < 1e-3 < errors[4]


def test_a_table_becomes_bytes_and_what_is_not_named_stays() -> None:
    weights = {"table": random(9, 32), "w": random(32, 4, seed=1)}
    nodes = [node("Gather", ["table", "ids"], "rows", "words/Gather"), node("MatMul", ["rows", "w"], "y", "out/MatMul")]
    made = graph(nodes, {"ids": ("int64", ("n",))}, {"y": ("n", 4)}, weights)
    int4(made, {"words"})
    stored = weights_of(made)
    assert (stored["w"] == weights["w"]).all()
    assert stored["table.int8"].dtype == np.int8
    step = np.abs(weights["table"]).max(axis=1, keepdims=True) / 127
    rows = np.rint(weights["table"] / step) * step
    assert run(made, {"ids": np.arange(9)})[0] == pytest.approx(rows @ weights["w"], abs=1e-3)
