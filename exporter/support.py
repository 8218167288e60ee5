"""Where a finished file runs, tried and not guessed."""

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from artifact.variant import Support
from errors import UserError
from exporter.sessions import open_file
from exporter.subject import Batch

CPU, GPU = "ort-cpu", "ort-cuda"
GPU_PROVIDER = "CUDAExecutionProvider"


def support(path: Path, batch: Batch) -> tuple[Support, ...]:
    """Whether ONNX Runtime runs a file on the CPU and on CUDA; `None` for what this machine cannot try."""
    return (_on_cpu(path, batch), _on_gpu())


def _on_cpu(path: Path, batch: Batch) -> Support:
    try:
        open_file(path).answer(batch)
    except Exception as error:  # onnxruntime raises many types, all of them about this file
        return Support(engine=CPU, runs=False, reason=_short(error, path))
    casts = _casts(path)
    return Support(
        engine=CPU, runs=True, reason=f"in fp32, between {casts} casts: no kernels of its own" if casts else None
    )


def _on_gpu() -> Support:
    if GPU_PROVIDER in onnxruntime.get_available_providers():
        return Support(engine=GPU, runs=None, reason="compare measures it")
    return Support(engine=GPU, runs=None, reason=f"not tried: this onnxruntime has no {GPU_PROVIDER}")


def _casts(path: Path) -> int:
    """Casts that ONNX Runtime adds to a half graph, because its CPU kernels take none."""
    model = onnx.load(str(path), load_external_data=False)
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if not any(tensor.data_type in half for tensor in model.graph.initializer):
        return 0
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        placed = onnx.load(options.optimized_model_filepath, load_external_data=False)
    before, after = (
        {node.output[0] for node in graph.graph.node if node.op_type == "Cast"} for graph in (model, placed)
    )
    return len(after - before)


def _short(error: Exception, path: Path) -> str:
    """The engine's own sentence without its prefix, the file by its name alone."""
    text = error.message if isinstance(error, UserError) else str(error)
    text = text.rpartition("[ONNXRuntimeError] : ")[2].splitlines()[0].replace(str(path), path.name)
    parts = [part.strip() for part in text.split(" : ")]
    return ": ".join(parts[1:] if parts[0].isdigit() else parts)
