import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from exporter.language.blocks import block_quantized
from tests.exporter.graphs import Arrays, as_bytes, graph, node, operators, random, run, weights_of

INPUTS, BLOCK = 96, 32
"""Three blocks to a row: their zero points fill a byte and a half."""

SIZES = {"query": 40, "key": 8}
WEIGHTS = {f"a.{name}.weight": random(INPUTS, size, seed=size) for name, size in SIZES.items()}
STATES = random(5, INPUTS)
GIVEN: Arrays = {"states": STATES}


def layers(*names: str) -> onnx_ir.Model:
    """Products of the states, each an output of the graph."""
    nodes = [node("MatMul", ["states", f"a.{name}.weight"], name, f"a.{name}/MatMul") for name in names]
    weights = {f"a.{name}.weight": WEIGHTS[f"a.{name}.weight"] for name in names}
    return graph(nodes, {"states": (5, INPUTS)}, {name: (5, SIZES[name]) for name in names}, weights)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("learns", [False, True])
def test_products_that_read_the_same_become_one_and_give_what_each_gave(bits: int, learns: bool) -> None:
    known = torch.from_numpy(STATES.T @ STATES)
    moments = {f"a.{name}": known for name in SIZES} if learns else None
    made = block_quantized(layers(*SIZES), bits, BLOCK, moments=moments)
    assert operators(made) == ["Cast", "MatMulNBits", "Split"]
    for name, found in zip(SIZES, run(made, GIVEN), strict=True):
        alone = block_quantized(layers(name), bits, BLOCK, moments=moments)
        assert operators(alone) == ["Cast", "MatMulNBits"]
        assert np.array_equal(found, run(alone, GIVEN)[0])
        exact = STATES @ WEIGHTS[f"a.{name}.weight"]
        assert np.abs(found - exact).max() < (0.2 if bits == 4 else 0.02) * np.abs(exact).max()


def test_a_product_behind_another_stays_its_own() -> None:
    nodes = [
        node("MatMul", ["states", "a.query.weight"], "query", "a.query/MatMul"),
        node("MatMul", ["query", "a.out.weight"], "out", "a.out/MatMul"),
    ]
    weights = {"a.query.weight": WEIGHTS["a.query.weight"], "a.out.weight": random(SIZES["query"], 8)}
    made = block_quantized(graph(nodes, {"states": (5, INPUTS)}, {"out": (5, 8)}, weights), 8, BLOCK)
    assert operators(made).count("MatMulNBits") == 2
    exact = STATES @ weights["a.query.weight"] @ weights["a.out.weight"]
    assert np.abs(run(made, GIVEN)[0] - exact).max() < 0.03 * np.abs(exact).max()


def test_a_joint_product_is_named_after_what_its_parts_share() -> None:
    names = set(weights_of(block_quantized(layers(*SIZES), 4, BLOCK)))
    assert names == {"a.joint.int4", "a.joint.scale", "a.joint.zero_point", "a.joint.product.lengths"}


def test_a_head_that_shares_the_table_stays_alone_and_keeps_its_bits() -> None:
    """It reads what another product reads, and its rows are stored once, for the lookup too."""
    nodes = [
        node("Gather", ["table", "ids"], "states", "embed/Gather"),
        node("Transpose", ["table"], "turned", "head/Transpose", perm=[1, 0]),
        node("MatMul", ["states", "turned"], "logits", "head/MatMul"),
        node("MatMul", ["states", "b.weight"], "more", "b/MatMul"),
    ]
    weights = {"table": random(64, BLOCK), "b.weight": random(BLOCK, 8, seed=1)}
    outputs = {"logits": (3, 64), "more": (3, 8)}
    made = block_quantized(graph(nodes, {"ids": ("int64", (3,))}, outputs, weights), 4, BLOCK, head_bits=8)
    read = onnx.load_from_string(as_bytes(made)).graph.node
    told = [{one.name: one.i for one in item.attribute} for item in read if item.op_type == "MatMulNBits"]
    assert sorted((one["N"], one["bits"]) for one in told) == [(8, 4), (64, 8)]
    assert [name for name in weights_of(made) if name.endswith("int8")] == ["table.int8"]
