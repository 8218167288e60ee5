"""Run a graph that is in memory or on disk on ONNX Runtime's CPU provider, as the exporter's own checks do."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from artifact.predict.cores import usable_cores
from artifact.predict.session import SessionConfig, open_session
from exporter.save import save_graph
from exporter.subject import Batch

PROVIDER = "CPUExecutionProvider"

CONFIG = SessionConfig(arena=False, memory_pattern=False)
"""As artifacts are served, but that nothing is kept for a next run: several sessions are open beside the model, and no
two batches have one shape."""

INLINE_BYTES = 200_000_000
"""More weights than this are streamed into a second file: inside the first they would be copied twice in memory."""


class GraphSession:
    """An open session that takes any batch with at least the graph's inputs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(item.name for item in session.get_inputs())
        self.outputs = tuple(item.name for item in session.get_outputs())

    def run(self, outputs: Sequence[str], batch: Batch) -> list[NDArray[Any]]:
        """The named outputs for one batch."""
        return list(self._session.run(list(outputs), {name: np.asarray(batch[name]) for name in self.inputs}))

    def answer(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
        """Every output by name."""
        return dict(zip(self.outputs, self.run(self.outputs, batch), strict=True))


def file_session(path: Path) -> Any:
    """An `onnxruntime.InferenceSession` on a file. Raises `UserError` when it does not load."""
    return open_session(path, provider=PROVIDER, threads=usable_cores(), config=CONFIG)


def graph_session(graph: onnx_ir.Model) -> Any:
    """The same on a graph in memory; its copy on disk is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        path = Path(folder) / "graph.onnx"
        save_graph(graph, path, external_data_bytes=INLINE_BYTES)
        return file_session(path)


def open_file(path: Path) -> GraphSession:
    """A file that answers batches. Raises `UserError` when it does not load."""
    return GraphSession(file_session(path))


def open_graph(graph: onnx_ir.Model) -> GraphSession:
    """The same of a graph in memory."""
    return GraphSession(graph_session(graph))
