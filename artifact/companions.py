"""Files that other tools expect beside a model, or in its folder."""

from pathlib import Path
from typing import Any

from artifact.predict.tokens import TextLimits
from artifact.tokenizer import read_config

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def special_tokens_map(checkpoint: Path) -> dict[str, Any]:
    """`special_tokens_map.json`, which transformers 5 writes no more and fastembed still reads.

    It is the checkpoint's own, or else its special tokens as `tokenizer_config.json` names them.
    """
    if (checkpoint / "special_tokens_map.json").is_file():
        return read_config(checkpoint, "special_tokens_map.json")
    config = read_config(checkpoint, "tokenizer_config.json")
    return {name: config[name] for name in SPECIAL if config.get(name)}


def tokenizer_config(checkpoint: Path, limits: TextLimits) -> dict[str, Any]:
    """`tokenizer_config.json`, by which other tools cut texts: as the artifact does."""
    return {**read_config(checkpoint, "tokenizer_config.json"), "model_max_length": limits.max_length_tokens}


DOCKERFILE = """FROM python:3.11-slim
WORKDIR /artifact
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN python predict.py --selftest && useradd --system server
USER server
ENTRYPOINT ["python", "predict.py"]
"""
"""A container that proves itself while it is built, and answers its arguments or its input."""
