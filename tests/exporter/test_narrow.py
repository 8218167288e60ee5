"""One position of the last layer is computed where one is read; which models have it, and what is left alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import NodeProto

from exporter.from_checkpoint import checkpoint_subject
from exporter.narrow import narrow
from exporter.trace import trace
from models.checkpoint import open_checkpoint
from tests.exporter.architectures import ARCHITECTURES, write_checkpoint
from tests.exporter.graphs import graph, node, operators, random, run

WIDE = ("batch", "tokens", 8)
WEIGHTS = {
    **{name: random(8, 8, seed=seed) for seed, name in enumerate(("wq", "wk", "wv", "wo", "wf"))},
    "bias": random(8, seed=9),
    "gain": random(8, seed=10),
    "heads": np.array([0, 0, 2, 4]),
    "joined": np.array([0, 0, 8]),
    "first": np.array(0),
    "last": np.array(-1),
}
LAYER = (
    *(node("MatMul", ["x", f"w{name}"], f"{name}.product") for name in "qkv"),
    *(node("Reshape", [f"{name}.product", "heads"], f"{name}.split") for name in "qkv"),
    *(node("Transpose", [f"{name}.split"], f"{name}.heads", perm=[0, 2, 1, 3]) for name in "qv"),
    node("Transpose", ["k.split"], "k.heads", perm=[0, 2, 3, 1]),
    node("MatMul", ["q.heads", "k.heads"], "scores"),
    node("Add", ["scores", "mask"], "masked"),
    node("Softmax", ["masked"], "shares", axis=-1),
    node("MatMul", ["shares", "v.heads"], "summed"),
    node("Transpose", ["summed"], "turned", perm=[0, 2, 1, 3]),
    node("Reshape", ["turned", "joined"], "told"),
    node("MatMul", ["told", "wo"], "out"),
    node("Add", ["out", "x"], "added"),
    node("LayerNormalization", ["added", "gain", "bias"], "normed", axis=-1),
    node("MatMul", ["normed", "wf"], "wide"),
    node("Gelu", ["wide"], "bent"),
    node("Add", ["bent", "normed"], "hidden"),
)
"""A layer with attention in two heads, as BERT's."""


def _graph(
    nodes: Sequence[NodeProto],
    outputs: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
) -> onnx_ir.Model:
    found = {name for item in nodes for name in item.input}
    given = {"x": WIDE} | ({"mask": ("batch", 1, "tokens", "tokens")} if "mask" in found else {})
    used = {name: array for name, array in WEIGHTS.items() if name in found}
    return graph(nodes, given | dict(inputs or {}), outputs, used)


def _batch(rows: int, length: int, *, mask: bool) -> dict[str, NDArray[Any]]:
    given = {"x": random(rows, length, 8, seed=length)}
    return given | ({"mask": random(rows, 1, length, length, seed=1)} if mask else {})


def _answers(made: onnx_ir.Model, *, mask: bool) -> list[NDArray[Any]]:
    sizes = ((1, 1), (1, 5), (3, 1), (3, 7))
    return [array for rows, length in sizes for array in run(made, _batch(rows, length, mask=mask))]


def _sizes(made: onnx_ir.Model) -> dict[str, list[int | str | None]]:
    """What each product that reads weights gives."""
    found = {}
    for item in made.graph:
        output = item.outputs[0]
        if item.op_type == "MatMul" and item.inputs[1] is not None and item.inputs[1].is_initializer():
            assert output.shape is not None
            found[str(output.name)] = [axis if isinstance(axis, int) else axis.value for axis in output.shape]
    return found


@pytest.mark.parametrize("position", ["first", "last"])
def test_a_layer_that_one_position_is_read_of_is_computed_for_it_alone(position: str) -> None:
    """Its keys and values are those of all positions, and the answer is the same."""
    made = _graph([*LAYER, node("Gather", ["hidden", position], "y", axis=1)], {"y": ("batch", 8)})
    expected = _answers(made, mask=True)
    assert narrow(made) == 3
    for found, wanted in zip(_answers(made, mask=True), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    one, all_of_them = ["batch", 1, 8], list(WIDE)
    assert _sizes(made) == {
        **dict.fromkeys(("q.product", "out", "wide"), one),
        **dict.fromkeys(("k.product", "v.product"), all_of_them),
    }
    assert narrow(made) == 0


def test_shapes_that_the_tracer_left_out_are_worked_out() -> None:
    """torch's exporter does not know the scores'."""
    made = _graph([*LAYER, node("Gather", ["hidden", "first"], "y", axis=1)], {"y": ("batch", 8)})
    for item in made.graph:
        if item.outputs[0].name in ("scores", "masked", "shares"):
            item.outputs[0].shape = None
    assert narrow(made) == 3
    assert _sizes(made)["q.product"] == ["batch", 1, 8]


def test_a_gated_layer_is_narrowed_through_its_halves() -> None:
    """As ModernBERT's, whose two halves are one product."""
    halves = node("Split", ["both"], "gate", axis=2, num_outputs=2)
    halves.output.append("value")
    before = [node("MatMul", ["x", "wq"], "wide"), node("Concat", ["wide", "x"], "both", axis=2)]
    nodes = [*before, halves, node("Sigmoid", ["gate"], "open"), node("Mul", ["open", "value"], "gated")]
    made = _graph([*nodes, node("Gather", ["gated", "first"], "y", axis=1)], {"y": ("batch", 8)})
    expected = _answers(made, mask=False)
    assert narrow(made) == 1
    for found, wanted in zip(_answers(made, mask=False), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert operators(made) == ["Gather", "MatMul", "Concat", "Split", "Sigmoid", "Mul", "Gather"]


BEFORE = (node("MatMul", ["x", "wq"], "p"),)
FIRST = (node("Gather", ["p", "first"], "y", axis=1),)
LEFT_ALONE: dict[str, tuple[Sequence[NodeProto], Mapping[str, Any]]] = {
    "all positions are an output, too": (BEFORE + FIRST, {"y": ("batch", 8), "p": WIDE}),
    "somebody else reads all positions": (
        (*BEFORE, *FIRST, node("ReduceMax", ["p"], "z", keepdims=0)),
        {"y": ("batch", 8), "z": ()},
    ),
    "two positions are read": (
        (*BEFORE, *FIRST, node("Gather", ["p", "last"], "z", axis=1)),
        {"y": ("batch", 8), "z": ("batch", 8)},
    ),
    "a channel is read": ((*BEFORE, node("Gather", ["p", "first"], "y", axis=2)), {"y": ("batch", "tokens")}),
    "positions mix after the product": (
        (*BEFORE, node("Softmax", ["p"], "mixed", axis=1), node("Gather", ["mixed", "first"], "y", axis=1)),
        {"y": ("batch", 8)},
    ),
    "positions are joined to others": (
        (*BEFORE, node("Concat", ["p", "x"], "both", axis=1), node("Gather", ["both", "last"], "y", axis=1)),
        {"y": ("batch", 8)},
    ),
    "nothing costly comes before": (
        (node("Add", ["x", "bias"], "p"), *FIRST),
        {"y": ("batch", 8)},
    ),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_needs_all_positions_is_left_alone(case: str) -> None:
    nodes, outputs = LEFT_ALONE[case]
    made = _graph(nodes, outputs)
    before = operators(made)
    assert narrow(made) == 0
    assert operators(made) == before


def test_a_norm_over_positions_is_left_alone() -> None:
    nodes = [
        *BEFORE,
        node("LayerNormalization", ["p", "gains"], "mixed", axis=1),
        node("Gather", ["mixed", "first"], "y", axis=1),
    ]
    weights = {"wq": WEIGHTS["wq"], "first": WEIGHTS["first"], "gains": random(5, 8)}
    assert narrow(graph(nodes, {"x": ("batch", 5, 8)}, {"y": ("batch", 8)}, weights)) == 0


def test_a_position_that_is_an_input_is_left_alone() -> None:
    nodes = [*BEFORE, node("Gather", ["p", "place"], "y", axis=1)]
    assert narrow(_graph(nodes, {"y": ("batch", 8)}, {"place": ("int64", ())})) == 0


def test_a_value_multiplied_by_itself_turned_keeps_all_its_positions() -> None:
    """One place of the product needs one position, the other all."""
    nodes = [
        node("MatMul", ["x", "wq"], "p"),
        node("Transpose", ["p"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["p", "turned"], "pairs"),
        node("MatMul", ["pairs", "p"], "mixed"),
        node("MatMul", ["mixed", "wk"], "out"),
        node("Gather", ["out", "first"], "y", axis=1),
    ]
    made = _graph(nodes, {"y": ("batch", 8)})
    expected = _answers(made, mask=False)
    assert narrow(made) == 1
    for found, wanted in zip(_answers(made, mask=False), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert _sizes(made) == {"p": list(WIDE), "out": ["batch", 1, 8]}


def test_what_is_the_same_at_every_position_is_not_chosen_from() -> None:
    nodes = [*BEFORE, node("Add", ["p", "row"], "sum"), node("Mul", ["sum", "bias"], "scaled")]
    made = _graph(
        [*nodes, node("Gather", ["scaled", "last"], "y", axis=1)], {"y": ("batch", 8)}, {"row": ("batch", 1, 8)}
    )
    batch = {"x": random(2, 3, 8), "row": random(2, 1, 8, seed=4)}
    (expected,) = run(made, batch)
    assert narrow(made) == 1
    np.testing.assert_allclose(run(made, batch)[0], expected, rtol=1e-5, atol=1e-6)
    assert operators(made).count("Gather") == 2


NARROWED = {"BERT": 4, "ModernBERT": 3, "ViT": 4, "GPT-2": 0, "BERT (answers)": 0, "MPNet": 0}
"""Products of the last layer: query, output and two of the feed-forward part (ModernBERT's query shares one with keys
and values). GPT-2 reads the last token that is no padding, which is another in each row; the others read all."""


EVERY_RUN = ("BERT", "ViT", "GPT-2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EVERY_RUN else pytest.mark.exhaustive) for name in NARROWED]
)
def test_models_that_read_one_position(name: str, tmp_path: Path) -> None:
    """That their answers are PyTorch's, `test_architectures.py` tells."""
    (architecture,) = [item for item in ARCHITECTURES if item.name == name]
    subject = checkpoint_subject(open_checkpoint(write_checkpoint(architecture, tmp_path)))
    found = [sizes for sizes in _sizes(trace(subject)).values() if len(sizes) == 3 and sizes[1] == 1]
    assert len(found) == NARROWED[name]
