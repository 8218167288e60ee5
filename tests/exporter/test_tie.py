from typing import Any

import numpy as np
import onnx_ir
import pytest
from numpy.typing import NDArray

from exporter.clean import strip
from exporter.integer import int8_dynamic
from exporter.layers import find_layers
from exporter.tie import LEAST_BYTES, tie, untie
from tests.cpu import EXACT
from tests.exporter.graphs import as_bytes, graph, node, operators, random, run, weights_of


def _language_model(table: NDArray[np.float32], head: NDArray[np.float32]) -> onnx_ir.Model:
    nodes = [
        node("Gather", ["table", "ids"], "rows", "words/Gather"),
        node("MatMul", ["rows", "head"], "y", "head/MatMul"),
    ]
    weights = {"table": table, "head": head}
    return graph(nodes, {"ids": ("int64", ("n",))}, {"y": ("n", head.shape[1])}, weights)


IDS = {"ids": np.array([0, 3, 2])}


def test_a_transposed_weight_is_stored_once_and_answers_are_the_same() -> None:
    table = random(40, 16)
    made = _language_model(table, np.ascontiguousarray(table.T))
    (expected,) = run(made, IDS)
    tie(made)
    assert list(weights_of(made)) == ["table"]
    assert operators(made) == ["Gather", "Transpose", "MatMul"]
    assert run(made, IDS)[0] == pytest.approx(expected, rel=1e-6)


def test_onnxruntime_folds_the_transpose(tmp_path: Any) -> None:
    from tests.exporter.graphs import running_operators

    table = random(40, 16)
    assert "Transpose" not in running_operators(tie(_language_model(table, np.ascontiguousarray(table.T))), tmp_path)


def test_untied_each_layer_has_its_weight_again() -> None:
    table = random(40, 16)
    made = untie(tie(_language_model(table, np.ascontiguousarray(table.T))))
    assert [layer.name for layer in find_layers(made)] == ["words", "head"]
    stored = weights_of(made)
    assert {name: array.tolist() for name, array in stored.items()} == {
        "table": table.tolist(),
        "head": table.T.tolist(),
    }
    assert operators(made) == ["Gather", "MatMul"]


def test_tying_twice_is_tying_once() -> None:
    table = random(40, 16)
    once = as_bytes(tie(_language_model(table, np.ascontiguousarray(table.T))))
    again = tie(_language_model(table, np.ascontiguousarray(table.T)))
    assert as_bytes(tie(untie(again))) == once


def test_equal_weights_are_stored_once() -> None:
    weight = random(16, 16)
    nodes = [node("MatMul", ["x", "a"], "h", "a/MatMul"), node("MatMul", ["h", "b"], "y", "b/MatMul")]
    made = graph(nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, {"a": weight, "b": weight.copy()})
    x = {"x": random(3, 16, seed=1)}
    (expected,) = run(made, x)
    tie(made)
    assert list(weights_of(made)) == ["a"]
    assert run(made, x)[0] == pytest.approx(expected)
    assert len(find_layers(made)) == 2


def test_small_and_different_weights_are_left_alone() -> None:
    small = random(15, 17)
    assert small.nbytes < LEAST_BYTES
    for table, head in (
        (small, small.T),
        (random(40, 16), random(16, 40, seed=1)),
        (random(16, 16), random(16, 16).T + 1),
    ):
        made = _language_model(table, np.ascontiguousarray(head))
        before = as_bytes(made)
        assert as_bytes(tie(made)) == before
        assert as_bytes(untie(made)) == before


def test_equal_bytes_of_another_type_or_shape_are_not_the_same_weight() -> None:
    weight = random(16, 32)
    made = _language_model(weight, random(32, 16))
    constant = {"one": weight, "other": weight.view(np.int32), "third": weight.reshape(32, 16)}
    nodes = [
        node("MatMul", ["x", "one"], "a"),
        node("Cast", ["other"], "b", to=1),
        node("MatMul", ["a", "third"], "c"),
        node("ReduceSum", ["b"], "d", keepdims=0),
        node("Add", ["c", "d"], "y"),
    ]
    made = graph(nodes, {"x": (2, 16)}, {"y": (2, 16)}, constant)
    assert set(weights_of(tie(made))) == set(constant)


def test_a_symmetric_weight_is_no_transposed_one() -> None:
    weight = random(20, 20)
    weight = weight + weight.T
    made = _language_model(weight, weight.T.copy())
    assert operators(tie(made)) == ["Gather", "MatMul"]
    assert list(weights_of(made)) == ["table"]


@EXACT
def test_a_tied_int8_weight_stays_tied() -> None:
    """A row of the table is a column of the head, so both have the same bytes and scales."""
    table = random(40, 32)
    made = tie(int8_dynamic(_language_model(table, np.ascontiguousarray(table.T)), {"words", "head"}))
    bytes_ = [array for array in weights_of(made).values() if array.dtype == np.int8 and array.ndim == 2]
    assert [array.shape for array in bytes_] == [(40, 32)]
    assert run(made, IDS)[0] == pytest.approx(table[IDS["ids"]] @ table.T, abs=0.6)


def test_a_weight_that_nothing_reads_goes() -> None:
    table = random(40, 16)
    made = _language_model(table, random(16, 40, seed=1))
    spare = onnx_ir.Value(name="spare", const_value=onnx_ir.tensor(np.ascontiguousarray(table.T), name="spare"))
    made.graph.register_initializer(spare)
    tie(made)
    assert set(weights_of(strip(made))) == {"table", "head"}


@pytest.mark.parametrize("perm", [[1, 0], [0, 1], None])
def test_untying_keeps_what_a_transpose_says(perm: list[int] | None) -> None:
    attributes: dict[str, Any] = {} if perm is None else {"perm": perm}
    nodes = [node("Transpose", ["w"], "t", **attributes), node("MatMul", ["x", "t"], "y", "dense/MatMul")]
    made = graph(nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, {"w": random(16, 16)})
    x = {"x": random(2, 16, seed=1)}
    (expected,) = run(made, x)
    assert run(untie(made), x)[0] == pytest.approx(expected)
