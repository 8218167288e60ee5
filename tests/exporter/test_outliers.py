"""Channels that stand out are brought to what is usual, and what the graph computes stays the same."""

import numpy as np
import pytest

from exporter.integer import int8_dynamic
from exporter.observe import channel_peaks
from exporter.outliers import divisors, level
from exporter.tie import tie, untie
from tests.exporter.graphs import graph, node, operators, product, random, run


def test_divisors_by_hand() -> None:
    peaks = np.array([*np.linspace(1, 2, 497), 30, 8, 3], dtype=np.float32)  # of 500 channels, two may stand out
    found = divisors(peaks)
    assert found is not None
    assert found[:497].tolist() == [1] * 497
    assert found[497:] == pytest.approx([10, 8 / 3, 1])


@pytest.mark.parametrize("peaks", [[1, 1.9], [0, 0, 0], [0, 5], [1, 1, np.inf], [1, np.nan, 1], [7]], ids=str)
def test_what_would_not_pay_or_is_no_number_is_left(peaks: list[float]) -> None:
    assert divisors(np.array(peaks, dtype=np.float32)) is None


def test_peaks_are_of_each_channel_over_all_batches() -> None:
    x = random(3, 5)
    found = channel_peaks(product(random(5, 2)), [{"x": x}, {"x": -2 * x}])
    assert found["x"].tolist() == (2 * np.abs(x).max(axis=0)).tolist()


def test_peaks_leave_out_padding() -> None:
    weights = {"w": random(4, 2), "table": np.diag([1, 2, 3, 90]).astype(np.float32)}
    nodes = [node("Gather", ["table", "ids"], "rows"), node("MatMul", ["rows", "w"], "h", "dense/MatMul")]
    nodes += [node("Cast", ["attention_mask"], "m", to=1), node("Unsqueeze", ["m", "last"], "m3")]
    nodes.append(node("Mul", ["h", "m3"], "y"))
    inputs = dict.fromkeys(("ids", "attention_mask"), ("int64", ("n", "s")))
    made = graph(nodes, inputs, {"y": ("n", "s", 2)}, weights | {"last": np.array([-1])})
    batch = {"ids": np.array([[0, 1, 2], [2, 3, 3]]), "attention_mask": np.array([[1, 1, 1], [1, 0, 0]])}
    assert channel_peaks(made, [batch])["rows"].tolist() == [1, 2, 3, 0]


def test_rounding_is_finer_where_one_channel_stands_out() -> None:
    weight, x = random(64, 16), random(40, 64, seed=1)
    x[:, 5] *= 30
    exact = x @ weight

    def error(*, levelled: bool) -> float:
        made = product(weight)
        if levelled:
            assert level(made, channel_peaks(made, [{"x": x}])) == 1
        (found,) = run(int8_dynamic(made, {"dense"}), {"x": x})
        return float(np.sqrt(np.mean((found - exact) ** 2)))

    assert error(levelled=True) < 0.5 * error(levelled=False)


def test_layers_of_one_input_share_the_division_and_stay_what_they_were() -> None:
    """A `Gemm` holds its weight the other way round; a tied weight is untied first and stays another's."""
    weights = {"w": random(40, 8), "t": random(8, 40, seed=2), "b": random(8, seed=3)}
    nodes = [
        node("MatMul", ["x", "w"], "p", "first/MatMul"),
        node("Gemm", ["x", "t", "b"], "q", "second/Gemm", transB=1),
        node("MatMul", ["z", "w"], "r", "third/MatMul"),
    ]
    made = graph(nodes, {"x": ("n", 40), "z": ("n", 40)}, dict.fromkeys("pqr", ("n", 8)), weights)
    x, z = random(6, 40, seed=4), random(6, 40, seed=5)
    x[:, 7] *= 20
    before = run(made, {"x": x, "z": z})
    made = untie(made)
    assert level(made, channel_peaks(made, [{"x": x, "z": z}])) == 1
    assert operators(made).count("Mul") == 1
    for found, expected in zip(run(tie(made), {"x": x, "z": z}), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_even_input_costs_nothing() -> None:
    made = product(random(40, 8))
    assert level(made, channel_peaks(made, [{"x": random(50, 40, seed=1)}])) == 0
    assert operators(made) == ["MatMul"]
