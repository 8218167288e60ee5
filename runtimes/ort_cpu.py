"""ONNX Runtime on the CPU."""

from pathlib import Path

from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from runtimes.base import Availability
from runtimes.options import ORT_CPU
from runtimes.ort_model import OrtModel, Target, probe_provider

NAME, PROVIDER = "ort-cpu", "CPUExecutionProvider"


def probe() -> Availability:
    """Whether this build of ONNX Runtime runs on the CPU."""
    return probe_provider(NAME, PROVIDER, "cpu")


class EngineRuntime(OrtModel):
    """An ONNX graph on ONNX Runtime's CPU provider."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_CPU) -> None:
        super().__init__(NAME, Target(provider=PROVIDER, device="cpu"), model, precision, threads, options)
