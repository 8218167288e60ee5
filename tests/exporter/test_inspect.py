from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifact.precision import Precision
from artifact.variant import TensorSpec
from exporter.four_bit import int4
from exporter.half import to_half
from exporter.inspect import FIRST_WITH_OPSET, TYPES, GraphFacts, inspect_graph
from exporter.integer import int8_dynamic
from exporter.request import EXPORTED
from exporter.save import save_graph
from tests.exporter.graphs import FP16_TYPE, graph, node, product, random


def _graph(path: Path, *, output: str = "y") -> Path:
    """x (batch, 3) @ w (3, 2) + b, beside 10 int8 numbers that nothing reads."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    arrays = {"w": np.ones((3, 2), np.float32), "b": np.float32(1), "q": np.ones((5, 2), np.int8)}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], [output])]
    made = helper.make_graph(nodes, "g", [x], [y], tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_facts_are_those_of_a_hand_made_graph(tmp_path: Path) -> None:
    facts = inspect_graph(_graph(tmp_path / "model.onnx"))
    assert (facts.opset, facts.ir_version, facts.domains) == (17, 9, ("ai.onnx",))
    assert facts.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)
    assert facts.outputs == (TensorSpec(name="y", dtype="float32", shape=("batch", 2)),)
    assert facts.operators == {"Add": 1, "MatMul": 1}
    assert facts.nodes == 2
    assert facts.weight_elements == {"float32": 7, "int8": 10}
    assert facts.minimum_onnxruntime == "unknown"  # nobody has run an opset that old
    assert facts.share_of(frozenset({"int8", "uint8"})) == pytest.approx(10 / 17)
    assert facts.share_of(frozenset({"float32", "int8"})) == 1
    assert facts.share_of(frozenset()) == 0


def test_a_graph_that_the_checker_refuses_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(onnx.checker.ValidationError):
        inspect_graph(_graph(tmp_path / "model.onnx", output="elsewhere"))


def test_facts_of_a_traced_graph_are_onnxs(traced_path: Path) -> None:
    facts, model = inspect_graph(traced_path), onnx.load(traced_path)
    assert facts.operators == dict(Counter(item.op_type for item in model.graph.node))
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert facts.weight_elements == {
        kind: sum(array.size for array in arrays if str(array.dtype) == kind)
        for kind in sorted({str(array.dtype) for array in arrays})
    }
    assert facts.ir_version == model.ir_version
    assert [(item.domain or "ai.onnx", item.version) for item in model.opset_import] == [("ai.onnx", facts.opset)]


def test_facts_of_a_graph_with_its_weights_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(product(random(30, 20)), path, external_data_bytes=1)
    assert inspect_graph(path).weight_elements == {"float32": 600}


def test_each_kind_of_file_is_told_by_its_weights(tmp_path: Path) -> None:
    made = {
        Precision.FP32: product(random(32, 8)),
        Precision.FP16: to_half(product(random(32, 8)), FP16_TYPE, ()),
        Precision.INT8_DYNAMIC: int8_dynamic(product(random(32, 8)), {"dense"}),
        Precision.INT4: int4(product(random(32, 8)), {"dense"}),
    }
    for precision, model in made.items():
        save_graph(model, tmp_path / f"{precision}.onnx")
        facts = inspect_graph(tmp_path / f"{precision}.onnx")
        shares = {name: facts.share_of(TYPES[name]) for name in made}
        assert shares[precision] > 0.5
        assert shares[Precision.FP32] < 0.5 or precision is Precision.FP32
        assert facts.is_of(precision)
        assert facts.is_of(Precision.FP32) == (shares[Precision.FP32] > 0)
    assert set(TYPES) == set(EXPORTED)


def test_a_graph_whose_tables_alone_are_bytes_is_not_int4(tmp_path: Path) -> None:
    rows = node("Gather", ["table", "ids"], "y", "words/Gather")
    made = graph([rows], {"ids": ("int64", ("n",))}, {"y": ("n", 8)}, {"table": random(20, 8)})
    save_graph(int4(made, {"words"}), tmp_path / "model.onnx")
    facts = inspect_graph(tmp_path / "model.onnx")
    assert facts.is_of(Precision.INT8_DYNAMIC)
    assert not facts.is_of(Precision.INT4)


def _facts(opset: int, *contrib: str) -> GraphFacts:
    return GraphFacts(
        opset=opset,
        ir_version=8,
        domains=("ai.onnx",),
        inputs=(),
        outputs=(),
        operators={"MatMul": 1, **dict.fromkeys(contrib, 1)},
        contrib=frozenset(contrib),
        weight_elements={},
    )


@pytest.mark.parametrize(
    ("opset", "contrib", "expected"),
    [
        (17, (), "unknown"),
        (18, (), "1.15"),
        (18, ("MultiHeadAttention",), "1.22"),
        (18, ("BiasGelu",), "1.15"),
        (20, (), "1.17"),
        (18, ("MatMulNBits",), "1.17"),
        (21, ("MatMulNBits", "BiasGelu"), "1.18"),
        (23, ("MatMulNBits", "MultiHeadAttention"), "1.23"),
        (99, ("MatMulNBits",), "unknown"),
        (99, (), "unknown"),
        (20, ("BrandNewAttention",), "unknown"),
    ],
)
def test_the_first_onnxruntime_is_the_newest_of_what_is_needed(
    opset: int, contrib: tuple[str, ...], expected: str
) -> None:
    assert _facts(opset, *contrib).minimum_onnxruntime == expected


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize(("opset", "expected"), [(18, "1.17"), (21, "1.18")])
def test_half_weights_need_a_newer_one(kind: str, opset: int, expected: str) -> None:
    assert replace(_facts(opset), weight_elements={kind: 4, "float32": 1}).minimum_onnxruntime == expected


def test_versions_are_numbers_and_grow_with_the_opset() -> None:
    """As onnx's own table of versions has them: each opset came with an onnx that came before that onnxruntime."""
    versions = [tuple(map(int, text.split("."))) for _, text in sorted(FIRST_WITH_OPSET.items())]
    assert versions == sorted(versions)
    assert sorted(FIRST_WITH_OPSET) == list(range(min(FIRST_WITH_OPSET), max(FIRST_WITH_OPSET) + 1))
