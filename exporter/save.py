"""Write a graph whole or not at all."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import onnx_ir

from artifact.records import replacing, sha256_bytes
from exporter.options import EXTERNAL_DATA_BYTES

LEAST_APART, ALIGNED = 1024, 4096
"""Bytes of weights that go into a file of their own, and the step of their places there: whole pages can be mapped."""


def weight_bytes(graph: onnx_ir.Model) -> int:
    """Bytes of all constant tensors."""
    return sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)


def save_graph(
    graph: onnx_ir.Model, path: Path, *, data_name: str | None = None, external_data_bytes: int = EXTERNAL_DATA_BYTES
) -> tuple[str, ...]:
    """Write a graph; above `external_data_bytes` of weights, these go into one file `data_name` beside it.

    Returns the names of the files that were written. Raises `UserError` when the disk is full.
    """
    data_name = data_name or f"{path.name}_data"
    if weight_bytes(graph) <= external_data_bytes:
        onnx_ir.external_data.load_to_model(graph)
        with replacing(path) as temporary:
            onnx_ir.save(graph, temporary, format="protobuf")
        path.with_name(data_name).unlink(missing_ok=True)
        return (path.name,)
    data = path.with_name(data_name)
    with replacing(path) as temporary:
        path.unlink(missing_ok=True)  # without its graph, a data file cut short is never read
        try:
            onnx_ir.save(graph, temporary, format="protobuf", external_data=data_name)
        except OSError:
            data.unlink(missing_ok=True)
            raise
    return (path.name, data_name)


def save_together(graphs: Mapping[Path, onnx_ir.Model], data_name: str) -> None:
    """Write graphs of one folder whose weights lie in one file `data_name`, each once, whichever graphs read it.

    Raises `UserError` when the disk is full.
    """
    folder = next(iter(graphs)).parent
    for path in graphs:
        path.unlink(missing_ok=True)  # without its graphs, a data file of others is never read
    places: dict[str, tuple[int, int]] = {}
    with replacing(folder / data_name) as temporary, temporary.open("wb") as file:
        for graph in graphs.values():
            for value in graph.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < LEAST_APART or value.is_graph_input():
                    continue
                found = tensor.tobytes()
                mark = sha256_bytes(found)
                if mark not in places:
                    file.write(bytes(-file.tell() % ALIGNED))
                    places[mark] = file.tell(), file.write(found)
                offset, length = places[mark]
                value.const_value = onnx_ir.ExternalTensor(
                    data_name,
                    offset,
                    length,
                    tensor.dtype,
                    shape=onnx_ir.Shape(tensor.shape.numpy()),
                    name=str(value.name),
                    base_dir=folder,
                )
    for path, graph in graphs.items():
        with replacing(path) as temporary:
            onnx_ir.save(graph, temporary, format="protobuf")


def copy_graph(source: Path, target: Path) -> None:
    """Copy a graph, and the file of its weights if it has one; the graph comes last. Raises `UserError`."""
    data = source.with_name(f"{source.name}_data")
    if data.exists():
        with replacing(target.with_name(data.name)) as temporary:
            shutil.copyfile(data, temporary)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    if not data.exists():
        target.with_name(data.name).unlink(missing_ok=True)


def load_graph(path: Path) -> onnx_ir.Model:
    """A graph from disk; weights in a second file are read when they are needed."""
    return onnx_ir.load(path)
