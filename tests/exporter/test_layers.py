from collections import Counter

import numpy as np
import pytest
import torch
from onnx import NodeProto, helper

from exporter.layers import LayerKind, find_layers
from exporter.observe import multiply_adds
from tests.exporter.graphs import graph, node, random


def _one(made: NodeProto, x: tuple[int, ...], y: tuple[int, ...], shape: tuple[int, ...]) -> list[str]:
    """Names of the layers of a graph that is one node on `x` and a weight of this shape."""
    return [layer.name for layer in find_layers(graph([made], {"x": x}, {"y": y}, {"w": random(*shape)}))]


def test_each_kind_of_layer_is_found_with_its_weight_and_work() -> None:
    weights = {
        "table": random(7, 6),
        "w1": random(6, 4),
        "w2": random(5, 4),
        "b2": random(5),
        "w3": random(8, 1, 3, seed=1),
    }
    nodes = [
        node("Gather", ["ids", "table"][::-1], "rows", "embeddings/Gather"),
        node("MatMul", ["rows", "w1"], "hidden", "first/MatMul"),
        node("Flatten", ["hidden"], "flat", axis=1),
        node("Reshape", ["flat", "two"], "pairs"),
        node("Gemm", ["pairs", "w2", "b2"], "y", "second/Gemm", transB=1),
        node("Unsqueeze", ["y", "one"], "deep"),
        node("Conv", ["deep", "w3"], "z", "third/Conv"),
    ]
    weights |= {"two": np.array([-1, 4]), "one": np.array([1])}
    found = find_layers(graph(nodes, {"ids": ("int64", ("n", 3))}, {"z": ("m", 8, 3)}, weights))
    assert [(layer.name, layer.kind) for layer in found] == [
        ("embeddings", LayerKind.GATHER),
        ("first", LayerKind.MATMUL),
        ("second", LayerKind.GEMM),
        ("third", LayerKind.CONV),
    ]
    assert [layer.elements for layer in found] == [42, 24, 20, 24]
    assert [layer.macs_per_output for layer in found] == [0, 6, 4, 3]
    assert [str(layer.source.name) for layer in found[1:]] == ["rows", "pairs", "deep"]
    expected = torch.from_numpy(weights["w2"]).T.numpy()  # (outputs, inputs) in the file
    assert (found[2].array == expected).all()
    assert found[2].array.shape == (4, 5)
    assert (found[1].array == weights["w1"]).all()


def test_a_gemm_that_is_not_transposed_keeps_its_weight_as_it_is() -> None:
    weight = random(3, 5)
    (layer,) = find_layers(graph([node("Gemm", ["x", "w"], "y")], {"x": ("n", 3)}, {"y": ("n", 5)}, {"w": weight}))
    assert (layer.array == weight).all()
    assert layer.macs_per_output == 3


def test_work_of_a_grouped_convolution_is_one_groups() -> None:
    made = node("Conv", ["x", "w"], "y", "conv/Conv", group=2)
    (layer,) = find_layers(graph([made], {"x": (1, 4, 5, 5)}, {"y": (1, 6, 3, 3)}, {"w": random(6, 2, 3, 3)}))
    assert layer.macs_per_output == 2 * 3 * 3


@pytest.mark.parametrize(
    ("made", "x", "y", "shape"),
    [
        (node("Gemm", ["x", "w"], "y", transA=1), (3, 2), (2, 5), (3, 5)),
        (node("Gemm", ["x", "w"], "y", alpha=0.5), (2, 3), (2, 5), (3, 5)),
        (node("Gemm", ["x", "w", "c"], "y", beta=2.0), (2, 3), (2, 5), (3, 5)),
        (node("MatMul", ["x", "w"], "y"), (2, 3), (2,), (3,)),
        (node("MatMul", ["x", "w"], "y"), (4, 2, 3), (4, 2, 5), (4, 3, 5)),
        (node("MatMul", ["w", "x"], "y"), (3, 2), (5, 2), (5, 3)),
    ],
    ids=["transA", "alpha", "beta", "vector", "stack", "weight first"],
)
def test_what_the_integer_kernels_cannot_do_is_no_layer(
    made: NodeProto, x: tuple[int, ...], y: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    weights = {"w": random(*shape)} | ({"c": random(5)} if "c" in made.input else {})
    assert find_layers(graph([made], {"x": x}, {"y": y}, weights)) == ()


def test_the_plain_one_of_these_is_a_layer() -> None:
    assert _one(node("Gemm", ["x", "w"], "y", alpha=1.0, transA=0), (2, 3), (2, 5), (3, 5)) == ["y"]


def test_a_product_of_two_activations_is_no_layer() -> None:
    made = graph([node("MatMul", ["x", "k"], "y")], {"x": (2, 3), "k": (3, 4)}, {"y": (2, 4)}, {})
    assert find_layers(made) == ()


@pytest.mark.parametrize("axis", [1, -1])
def test_a_lookup_along_another_axis_is_no_layer(axis: int) -> None:
    made = node("Gather", ["w", "ids"], "y", axis=axis)
    assert find_layers(graph([made], {"ids": ("int64", (2,))}, {"y": (4, 2)}, {"w": random(4, 6)})) == ()


def test_names_are_modules_and_the_node_where_a_module_has_several() -> None:
    nodes = [
        node("MatMul", ["x", "w"], "a", "encoder.layer.0/MatMul"),
        node("MatMul", ["a", "w"], "b", "encoder.layer.0/MatMul_2"),
        node("MatMul", ["b", "w"], "c", "MatMul"),
        node("MatMul", ["c", "w"], "y", "MatMul_2"),
    ]
    found = find_layers(graph(nodes, {"x": (2, 3)}, {"y": (2, 3)}, {"w": random(3, 3)}))
    assert [layer.name for layer in found] == [
        "encoder.layer.0",
        "encoder.layer.0/MatMul_2",
        "MatMul",
        "MatMul_2",
    ]


def test_two_kinds_of_layer_in_one_module_have_two_names() -> None:
    """As of an embedding that is the classifier too, or a module whose `forward` multiplies by two parameters."""
    nodes = [
        node("MatMul", ["x", "w"], "a", "attention/MatMul"),
        node("Gemm", ["a", "w"], "y", "attention/Gemm"),
    ]
    made = graph(nodes, {"x": (2, 3)}, {"y": (2, 3)}, {"w": random(3, 3)})
    names = Counter(layer.name for layer in find_layers(made))
    assert len(names) == 2
    assert multiply_adds(made, {"x": random(2, 3)}) == dict.fromkeys(names, 2 * 3 * 3)


def test_int64_and_bool_weights_are_left_alone() -> None:
    made = helper.make_node("Gather", ["w", "ids"], ["rows"], name="ids/Gather")
    cast = node("Cast", ["rows"], "y", to=1)
    table = np.arange(12).reshape(6, 2)
    assert find_layers(graph([made, cast], {"ids": ("int64", (3,))}, {"y": (3, 2)}, {"w": table})) == ()
