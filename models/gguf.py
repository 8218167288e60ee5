"""Models in llama.cpp's format: transformers unpacks them."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from errors import UserError
from models.quiet import ON_IMPORT, hushed

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


@contextmanager
def without_bars() -> Iterator[None]:
    """Let neither transformers' own progress bar on the terminal, which has no switch, nor what torchao warns of when
    it is imported."""
    with hushed(*ON_IMPORT), redirect_stderr(StringIO()):
        yield


def unpacked() -> dict[str, Any]:
    """What `from_pretrained` is told so that the model is a plain one, which can be trained and saved."""
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def read_once() -> Iterator[None]:
    """Let transformers, which reads a file and maps its names anew for each of its parts, do so once inside the block.

    Raises `ImportError` where gguf is not installed.
    """
    import gguf

    with (
        patch.object(gguf, "GGUFReader", cache(gguf.GGUFReader)),
        patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
    ):
        yield


def unpack(file: Path, out: Path) -> None:
    """Write a language model in fp32, and its tokenizer, as a checkpoint's folder.

    Raises `UserError` for a file that transformers cannot read.
    """
    where = source(str(file))
    folder = where.pop("name")
    with without_bars():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            with read_once():
                tokenizer = AutoTokenizer.from_pretrained(folder, **where)
                model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **where, **unpacked())
        except ImportError as error:
            raise UserError(f"{file} needs the package gguf", "pip install 'steelyard[gguf]'") from error
        except Exception as error:  # readers and tokenizers raise many types, all of them about this file
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"{file} cannot be read: {first}", "give a GGUF file of a decoder that it knows") from error
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
