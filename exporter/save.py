"""Write a graph whole or not at all."""

import shutil
from pathlib import Path

import onnx_ir

from artifact.records import replacing
from exporter.options import EXTERNAL_DATA_BYTES


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
