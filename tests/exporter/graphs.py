"""Small graphs made by hand with onnx's own helper, and plain sessions to run them, beside the exporter's own code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Arrays = Mapping[str, NDArray[Any]]
Weights = Mapping[str, NDArray[Any] | np.generic]
Shape = tuple[int | str, ...]
Given = Mapping[str, Shape | tuple[str, Shape]]
KINDS = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
FP16_TYPE, BF16_TYPE = onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16


def node(op: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> NodeProto:
    """A node with one output; its name is the operator's after the output unless it is given."""
    return helper.make_node(op, list(inputs), [output], name=name or f"{output}/{op}", **attributes)


def proto(
    nodes: Sequence[NodeProto],
    inputs: Given,
    outputs: Mapping[str, Shape],
    weights: Weights,
    *,
    opset: int = 20,
) -> onnx.ModelProto:
    """A checked model with the types of all its values. An input that is not float is a pair of its type and shape."""
    infos = []
    for name, given in inputs.items():
        if len(given) == 2 and isinstance(given[1], tuple):
            infos.append(helper.make_tensor_value_info(name, KINDS[str(given[0])], given[1]))
        else:
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, given))
    graph = helper.make_graph(
        list(nodes),
        "test",
        infos,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def graph(
    nodes: Sequence[NodeProto],
    inputs: Given,
    outputs: Mapping[str, Shape],
    weights: Weights,
    *,
    opset: int = 20,
) -> onnx_ir.Model:
    """The same as the exporter holds it."""
    return onnx_ir.serde.deserialize_model(proto(nodes, inputs, outputs, weights, opset=opset))


def product(weight: NDArray[np.float32]) -> onnx_ir.Model:
    """`y = x @ weight`; its layer is called `dense`."""
    inputs, outputs = weight.shape
    return graph(
        [node("MatMul", ["x", "w"], "y", "dense/MatMul")], {"x": ("n", inputs)}, {"y": ("n", outputs)}, {"w": weight}
    )


def as_bytes(model: onnx_ir.Model) -> bytes:
    """The model's file."""
    return bytes(onnx_ir.serde.serialize_model(model).SerializeToString())


def session(
    model: onnx_ir.Model | Path, *, optimized: Path | None = None, level: str = "ENABLE_ALL"
) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime's own; the graph as it runs is written to `optimized`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(model) if isinstance(model, Path) else as_bytes(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: onnx_ir.Model | Path, batch: Arrays, *, level: str = "ENABLE_ALL") -> list[NDArray[Any]]:
    """Every output of a model for one batch."""
    return [np.asarray(array) for array in session(model, level=level).run(None, dict(batch))]


def running_operators(model: onnx_ir.Model, folder: Path) -> list[str]:
    """The operators that ONNX Runtime runs after its own fusions."""
    session(model, optimized=folder / "optimized.onnx")
    return [item.op_type for item in onnx.load(folder / "optimized.onnx").graph.node]


def weights_of(model: onnx_ir.Model) -> dict[str, NDArray[Any]]:
    """The constants of a model by name, read back by onnx."""
    loaded = onnx.load_from_string(as_bytes(model))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}


def operators(model: onnx_ir.Model) -> list[str]:
    """The operators of a model in its order, read back by onnx."""
    return [item.op_type for item in onnx.load_from_string(as_bytes(model)).graph.node]


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
