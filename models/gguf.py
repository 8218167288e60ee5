"""Models in llama.cpp's format: transformers unpacks them."""

from pathlib import Path
from typing import Any

from errors import UserError

SUFFIX = ".gguf"


def is_gguf(path: str) -> bool:
    """Whether a model is named by such a file."""
    return Path(path).suffix.lower() == SUFFIX


def source(path: str) -> dict[str, str]:
    """What `from_pretrained` calls it: a folder, and the file inside. Raises `UserError` when there is no such file."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"the base model {path} does not exist", "check the path")
    return {"name": str(file.parent), "gguf_file": file.name}


def unpacked() -> dict[str, Any]:
    """What `from_pretrained` is told so that the model is a plain one, which can be trained and saved."""
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}
