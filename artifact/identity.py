"""Which checkpoint is which, by content."""

from pathlib import Path

from artifact.records import sha256_files
from artifact.tokenizer import TOKENIZER_FILES


def checkpoint_sha256(directory: Path) -> str:
    """Hash of everything that decides a checkpoint's answers: weights, configuration, tokenizer."""
    names = ("config.json", *TOKENIZER_FILES)
    return sha256_files(
        [*directory.glob("*.safetensors"), *(directory / name for name in names if (directory / name).is_file())]
    )
