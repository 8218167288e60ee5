"""A file of llama.cpp's becomes a checkpoint with the very weights that it was made of."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from models.gguf import unpack
from tests.gguf_file import write_gguf


def test_a_file_is_read_once_and_gives_its_weights(
    learnt_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks for it three times, which takes ten seconds where a vocabulary is large."""
    write_gguf(learnt_llama, tmp_path / "small.gguf")
    read, own = [], gguf.GGUFReader

    def reader(path: Any, *given: Any) -> Any:
        read.append(path)
        return own(path, *given)

    monkeypatch.setattr(gguf, "GGUFReader", reader)
    unpack(tmp_path / "small.gguf", tmp_path / "checkpoint")
    assert len(read) == 1
    assert gguf.GGUFReader is reader  # what is changed meanwhile is put back
    found, expected = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (tmp_path / "checkpoint", learnt_llama)
    )
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)
