"""Language models on ONNX Runtime's CPU provider."""

from pathlib import Path

from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from runtimes.options import ORT_CPU
from runtimes.ort_cpu import EngineRuntime
from runtimes.ort_language import OrtLanguage


class EngineLanguage(OrtLanguage):
    """Exported graphs, as artifacts run them; a `LanguageRuntime`."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: SessionConfig = ORT_CPU) -> None:
        super().__init__(lambda graph: EngineRuntime(graph, precision, threads, options), model)
