from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifact.variant import TensorSpec
from exporter.inspect import inspect_graph


def _graph(path: Path, *, output: str = "y") -> Path:
    """x (batch, 3) @ w (3, 2) + b, beside 10 int8 numbers that nothing reads."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    arrays = {"w": np.ones((3, 2), np.float32), "b": np.float32(1), "q": np.ones((5, 2), np.int8)}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], [output])]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_facts_are_those_of_a_hand_made_graph(tmp_path: Path) -> None:
    facts = inspect_graph(_graph(tmp_path / "model.onnx"))
    assert (facts.opset, facts.ir_version, facts.domains) == (17, 9, ("ai.onnx",))
    assert facts.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)
    assert facts.outputs == (TensorSpec(name="y", dtype="float32", shape=("batch", 2)),)
    assert facts.operators == {"Add": 1, "MatMul": 1}
    assert facts.nodes == 2
    assert facts.weight_elements == {"float32": 7, "int8": 10}
    assert facts.quantized_weights_fraction == pytest.approx(10 / 17)


def test_a_graph_that_the_checker_refuses_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(onnx.checker.ValidationError):
        inspect_graph(_graph(tmp_path / "model.onnx", output="elsewhere"))
