"""Which checkpoint is which, by content."""

from pathlib import Path

from artifact.records import sha256_files
from artifact.sentences import gives_vectors, lengths_of
from artifact.tokenizer import TOKENIZER_FILES


def checkpoint_sha256(directory: Path) -> str:
    """Hash of everything that decides a checkpoint's answers: weights, configuration, tokenizer or processor."""
    lengths = lengths_of(directory) if gives_vectors(directory) else ()
    names = ("config.json", "preprocessor_config.json", "processor_config.json", *TOKENIZER_FILES, *lengths)
    weights = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    return sha256_files([*weights, *(directory / name for name in names if (directory / name).is_file())])
