"""ONNX Runtime with TensorRT on an NVIDIA GPU; what TensorRT does not take runs on CUDA."""

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Self

import msgspec
import onnxruntime

from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from runtimes.base import Availability
from runtimes.options import ORT_TENSORRT
from runtimes.ort_gpu import CUDA, DEVICE, OrtGpu, load_cuda_libraries, probe_gpu
from runtimes.ort_model import Target

NAME, TENSORRT = "ort-tensorrt", "TensorrtExecutionProvider"
REMEDY = "pip install the tensorrt that this onnxruntime was built with, or put its libraries on LD_LIBRARY_PATH"
TF32_OFF = ("NVIDIA_TF32_OVERRIDE", "0")
"""TensorRT multiplies fp32 in TF32 unless this variable forbids it; ONNX Runtime has no option for that."""

SMALL_GRAPH = (
    b'\x08\x08:5\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x10\n\x01x\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01n'
    b"b\x10\n\x01y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01nB\x04\n\x00\x10\x11"
)
"""An ONNX file: y = Relu(x), float32 of shape (n)."""


def probe() -> Availability:
    """Whether TensorRT loads. A build of ONNX Runtime names it whether its libraries are there or not, so it is tried,
    on a graph too small for it to build an engine."""
    found = probe_gpu(NAME, TENSORRT)
    if not found.available:
        return found
    load_cuda_libraries()
    with suppress(ImportError, OSError):
        import_module("tensorrt")  # loads the libraries from where pip put them
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            SMALL_GRAPH, options, providers=[(TENSORRT, {"trt_min_subgraph_size": "1000"})], enable_fallback=0
        )
        reason = None if TENSORRT in session.get_providers() else "ONNX Runtime left it out of a session"
    except Exception as error:  # onnxruntime raises many types, all of them about TensorRT's libraries
        reason = " ".join(str(error).split())
    if reason is None:
        return found
    return msgspec.structs.replace(
        found, available=False, device=None, reason=f"TensorRT does not load: {reason}", remedy=REMEDY
    )


class EngineRuntime(OrtGpu):
    """An fp32 ONNX graph on ONNX Runtime's TensorRT provider; with `fp16`, TensorRT chooses which layers compute so.

    Engines are built for the shapes that come, so the first run of a shape may take long.
    """

    def __init__(self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_TENSORRT) -> None:
        target = Target(
            provider=TENSORRT,
            device=DEVICE,
            options={"trt_fp16_enable": "1" if precision is Precision.FP16 else "0"},
            companions={CUDA: {"use_tf32": "0"}},
            entries={"session.disable_cpu_ep_fallback": "1"},
        )
        super().__init__(NAME, target, model, precision, threads, options)

    def __enter__(self) -> Self:
        """Raises `UserError` when TensorRT does not load or takes no node, and when a node is neither on TensorRT nor
        on CUDA.

        Sets `NVIDIA_TF32_OVERRIDE` for the whole process, which NVIDIA's libraries read once: so a process runs one
        candidate.
        """
        os.environ.update([TF32_OFF])
        probe().require()
        return super().__enter__()

    def _taken(self) -> dict[str, str]:
        name, _ = TF32_OFF
        return super()._taken() | {name: os.environ.get(name, "")}
