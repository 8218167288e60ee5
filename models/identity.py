"""What a base model is (light: no torch)."""

from pathlib import Path

from artifact.records import sha256_file, sha256_files
from errors import UserError

BASE_SUFFIXES = (".json", ".safetensors", ".txt", ".model")
"""Files of a base model that decide what it answers."""


def identity(base_model: str) -> str:
    """A hash of a local folder's files or of a GGUF file, or the Hub id itself.

    Raises `UserError` for what does not exist or holds no model.
    """
    folder = Path(base_model)
    if folder.is_file():
        if folder.suffix.lower() != ".gguf":
            raise UserError(f"{folder} is no model", "give a folder written by save_pretrained, or a .gguf file")
        return sha256_file(folder)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} has no config.json, so it is not a model", "give a folder written by save_pretrained"
            )
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"{folder} has no safetensors weights", "save it with model.save_pretrained(folder)")
        return sha256_files(path for path in folder.iterdir() if path.suffix in BASE_SUFFIXES)
    if base_model.startswith((".", "/", "~")) or base_model.count("/") > 1:
        raise UserError(f"{base_model} does not exist", "give a folder written by save_pretrained, or a Hub id")
    return base_model
