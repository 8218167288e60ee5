"""How many rows the tables of a graph have, read from the file's bytes alone; the onnx package writes the files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from errors import GateFailed
from runtimes.tables import table_rows
from tests.exporter.graphs import node, random


def saved(folder: Path, nodes: Sequence[NodeProto], tables: dict[str, tuple[int, int]]) -> Path:
    """A graph that reads `ids` and `kinds`."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ("n", "t")) for name in ("ids", "kinds")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [onnx.numpy_helper.from_array(random(*shape), name) for name, shape in tables.items()]
    graph = helper.make_graph(nodes, "tables", inputs, [output], weights)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    return path


def test_each_input_has_the_rows_of_its_table(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["words", "ids"], "a"),
        node("Gather", ["sorts", "kinds"], "b"),
        node("Add", ["a", "b"], "y"),
    ]
    assert table_rows(saved(tmp_path, nodes, {"words": (300, 4), "sorts": (2, 4)})) == {"ids": 300, "kinds": 2}


def test_the_smallest_of_several_tables_counts_also_behind_a_cast(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["large", "ids"], "a"),
        node("Cast", ["ids"], "c", to=TensorProto.INT32),
        node("Unsqueeze", ["c", "axes"], "u"),
        node("Gather", ["small", "u"], "y"),
    ]
    assert table_rows(saved(tmp_path, nodes, {"large": (300, 4), "small": (150, 4)})) == {"ids": 150}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Gather", ["words", "ids"], "y", axis=1)],
        [node("Add", ["ids", "ids"], "s"), node("Gather", ["words", "s"], "y")],
        [node("Gather", ["ids", "kinds"], "y")],
        [node("MatMul", ["ids", "words"], "y")],
    ],
    ids=["another axis", "computed numbers", "no weight", "no table"],
)
def test_what_is_no_table_of_an_input_is_left_alone(tmp_path: Path, nodes: list[NodeProto]) -> None:
    assert table_rows(saved(tmp_path, nodes, {"words": (300, 4)})) == {}


@pytest.mark.parametrize("rows", [1, 127, 128, 2**31])
def test_a_number_of_any_length_is_read_and_weights_are_not(tmp_path: Path, rows: int) -> None:
    path = saved(tmp_path, [node("Gather", ["words", "ids"], "y")], {"words": (1, 1)})
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = rows
    onnx.save(model, path)
    assert table_rows(path) == {"ids": rows}


def test_it_agrees_with_the_onnx_package_on_real_exports(graph: Path) -> None:
    model = onnx.load(graph)
    sizes = {item.name: item.dims[0] for item in model.graph.initializer if item.dims}
    inputs = {item.name for item in model.graph.input}
    lookups = [item.input for item in model.graph.node if item.op_type == "Gather" and item.input[1] in inputs]
    expected = {name: sizes[table] for table, name in lookups}
    assert set(expected) == {"input_ids", "token_type_ids"}
    assert table_rows(graph) == expected


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(200))
    with pytest.raises(GateFailed, match="not a whole ONNX file"):
        table_rows(path)
