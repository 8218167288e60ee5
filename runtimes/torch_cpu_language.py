"""Language models in PyTorch on the CPU; their fp32, eager, is the reference."""

from pathlib import Path

from artifact.precision import Precision
from runtimes.options import TORCH_LANGUAGE, TorchLanguageOptions
from runtimes.torch_cpu import NAME
from runtimes.torch_language import TorchLanguage


class EngineLanguage(TorchLanguage):
    """A checkpoint in PyTorch on the CPU; a `LanguageRuntime`."""

    def __init__(
        self, model: Path, precision: Precision, threads: int, options: TorchLanguageOptions = TORCH_LANGUAGE
    ) -> None:
        super().__init__(NAME, "cpu", model, precision, threads, options)
