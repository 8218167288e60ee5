import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exporter.observe import BINS, Spread, largest_values, layer_inputs, multiply_adds
from tests.exporter.graphs import Given, Weights, as_bytes, graph, node, product, random

LEAST = np.finfo(np.float32).min


def test_largest_values_are_torchs() -> None:
    weights: Weights = {"w": random(6, 4), "one": np.float32(1)}
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("Tanh", ["h"], "t"),
        node("Sub", ["t", "one"], "s"),
        node("ReduceSum", ["s"], "y", keepdims=0),
    ]
    made = graph(nodes, {"x": ("n", 6)}, {"y": ()}, weights)
    batches = [random(3, 6, seed=1), 2 * random(5, 6, seed=2)]
    h = [torch.from_numpy(batch) @ torch.from_numpy(weights["w"]) for batch in batches]
    expected = {
        "h": max(float(item.abs().max()) for item in h),
        "t": max(float(item.tanh().abs().max()) for item in h),
        "s": max(float((item.tanh() - 1).abs().max()) for item in h),
        "y": max(float((item.tanh() - 1).sum().abs()) for item in h),
    }
    before = as_bytes(made)
    assert largest_values(made, [{"x": batch} for batch in batches]) == pytest.approx(expected, rel=1e-5)
    assert as_bytes(made) == before


def test_what_only_masks_is_not_counted_nor_what_is_no_number_in_fp32_either() -> None:
    weights = {"least": LEAST, "zero": np.float32(0)}
    nodes = [
        node("Greater", ["x", "zero"], "seen"),
        node("Where", ["seen", "x", "least"], "masked"),
        node("Add", ["masked", "x"], "sum"),
        node("Softmax", ["sum"], "soft", axis=-1),
        node("Sqrt", ["x"], "root"),
        node("Div", ["x", "zero"], "y"),
    ]
    made = graph(nodes, {"x": ("n", 3)}, {"soft": ("n", 3), "root": ("n", 3), "y": ("n", 3)}, weights)
    found = largest_values(made, [{"x": np.array([[1.0, 3.0, -7.0]], np.float32)}])
    assert (found["masked"], found["sum"]) == (3, 6)
    assert found["soft"] == pytest.approx(torch.tensor([2.0, 6.0]).softmax(-1).max().item())
    assert found["root"] == pytest.approx(3**0.5)  # and NaN of -7, which more bits do not mend
    assert found["y"] == 0  # ±inf, as in a mask
    assert "seen" not in found


def test_doubling_limits_conserve_counts_and_edges() -> None:
    spread, every = Spread(), []
    for number in range(6):
        values = random(37, 11, seed=number) * np.float32(3**number)
        spread.add(values)
        every.append(values.ravel())
        seen = np.concatenate(every)
        assert int(spread.counts.sum()) == seen.size
        assert (spread.low, spread.high) == (float(seen.min()), float(seen.max()))
        assert spread.limit >= np.abs(seen).max() > spread.limit / 2.0001 or number == 0
    expected = np.histogram(seen.astype(np.float64), bins=spread.edges)[0]
    moved = np.abs(np.cumsum(spread.counts) - np.cumsum(expected)).max()
    assert moved <= 2  # a number on an edge may fall to either side of it
    width = 2 * spread.limit / BINS
    for share in (0.001, 0.05, 0.5, 0.95, 0.999):
        place = int(np.searchsorted(np.cumsum(spread.counts), share * seen.size))
        exact = np.quantile(seen, share, method="inverted_cdf")
        assert spread.edges[place] - width / 100 <= exact <= spread.edges[place + 1] + width / 100


def test_zeros_first_and_numbers_later() -> None:
    spread = Spread()
    spread.add(np.zeros(5, np.float32))
    spread.add(np.zeros((0, 3), np.float32))
    spread.add(np.array([2.0, -3.0], np.float32))
    assert int(spread.counts.sum()) == 7
    assert (spread.low, spread.high) == (-3, 2)
    middle = np.flatnonzero(spread.counts)
    assert spread.counts[middle].tolist() == [1, 5, 1]


def _spread(values: NDArray[np.float32]) -> Spread:
    spread = Spread()
    spread.add(values)
    return spread


def test_the_inputs_of_layers_are_spread_and_padding_is_left_out() -> None:
    weights = {"w": random(4, 4), "v": random(4, 2, seed=1), "table": random(9, 4, seed=2)}
    nodes = [
        node("Gather", ["table", "ids"], "rows", "words/Gather"),
        node("MatMul", ["rows", "w"], "h", "first/MatMul"),
        node("Cast", ["attention_mask"], "m", to=1),
        node("Unsqueeze", ["m", "last"], "m3"),
        node("Mul", ["h", "m3"], "h2"),
        node("ReduceSum", ["h2", "middle"], "pooled", keepdims=0),
        node("MatMul", ["pooled", "v"], "y", "second/MatMul"),
    ]
    weights |= {"last": np.array([-1]), "middle": np.array([1])}
    inputs = dict.fromkeys(("ids", "attention_mask"), ("int64", ("n", "s")))
    made = graph(nodes, inputs, {"y": ("n", 2)}, weights)
    mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0]])  # as long as the vectors are wide
    ids = np.array([[1, 2, 3, 4], [5, 8, 8, 8]])
    found = layer_inputs(made, [{"ids": ids, "attention_mask": mask}])
    assert set(found) == {"rows", "pooled"}
    rows = weights["table"][ids[mask.astype(bool)]]
    pooled = (weights["table"][ids] @ weights["w"] * mask[..., None]).sum(1)
    for name, expected in (("rows", rows), ("pooled", pooled)):
        assert int(found[name].counts.sum()) == expected.size
        assert (found[name].low, found[name].high) == pytest.approx((expected.min(), expected.max()))


def test_a_convolutions_channels_are_no_padded_positions() -> None:
    nodes = [
        node("Relu", ["x"], "r"),
        node("Conv", ["r", "w"], "h", "conv/Conv"),
        node("Cast", ["attention_mask"], "m", to=1),
    ]
    nodes.append(node("ReduceSum", ["m"], "sum", keepdims=0))
    nodes.append(node("Add", ["h", "sum"], "y"))
    inputs: Given = {"x": (2, 3, 5), "attention_mask": ("int64", (2, 3))}
    made = graph(nodes, inputs, {"y": (2, 4, 3)}, {"w": random(4, 3, 3)})
    x, mask = random(2, 3, 5, seed=3), np.array([[1, 1, 1], [1, 1, 0]])
    found = layer_inputs(made, [{"x": x, "attention_mask": mask}])
    assert int(found["r"].counts.sum()) == 2 * 3 * 5


def test_an_input_of_the_graph_may_be_a_layers_input() -> None:
    x = random(3, 5)
    found = layer_inputs(product(random(5, 2)), [{"x": x}, {"x": 2 * x}])
    both = np.concatenate([x, 2 * x])
    assert (found["x"].low, found["x"].high) == (both.min(), both.max())
    assert int(found["x"].counts.sum()) == both.size


def test_work_by_hand() -> None:
    weights = {
        "w": random(6, 4),
        "g": random(5, 4),
        "k": random(8, 2, 3, seed=1),
        "one": np.array([1]),
        "flat": np.array([-1, 4]),
        "pair": np.array([2, 4, 15]),
    }
    nodes = [
        node("MatMul", ["x", "w"], "h", "first/MatMul"),
        node("Reshape", ["h", "flat"], "f"),
        node("Gemm", ["f", "g"], "y", "second/Gemm", transB=1),
        node("Reshape", ["y", "pair"], "images"),
        node("Conv", ["images", "k"], "z", "third/Conv", group=2, strides=[2]),
    ]
    made = graph(nodes, {"x": (4, 6, 6)}, {"z": (2, 8, 7)}, weights)
    found = multiply_adds(made, {"x": random(4, 6, 6)})
    assert found == {
        "first": (4 * 6) * 6 * 4,
        "second": (4 * 6) * 4 * 5,
        "third": 2 * 7 * 8 * 2 * 3,  # images, places, filters, and 2 of 4 channels by 3
    }


def test_a_graph_without_layers_has_no_work() -> None:
    made = graph([node("Relu", ["x"], "y")], {"x": ("n",)}, {"y": ("n",)}, {})
    assert multiply_adds(made, {"x": random(3)}) == {}


def test_a_spread_of_one_value() -> None:
    spread = _spread(np.full(10, -2.5, np.float32))
    assert (spread.low, spread.high, spread.limit) == (-2.5, -2.5, 2.5)
    assert spread.counts[0] == 10
