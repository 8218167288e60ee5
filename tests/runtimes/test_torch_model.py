import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.precision import Precision
from errors import UserError
from models import checkpoint as loading
from runtimes.base import Candidate
from runtimes.torch_cpu import EngineRuntime, probe
from tests.runtimes.conftest import BATCH

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_torch_always_runs_on_the_cpu() -> None:
    found = probe()
    assert (found.available, found.device, found.engine_version) == (True, "cpu", torch.__version__)


@pytest.mark.parametrize("word", ["g++", "/opt/none/bin/c++"])
def test_without_a_compiler_only_compiling_is_lacking(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False) if word == "g++" else monkeypatch.setenv("CXX", word)
    found = probe()
    lack = found.lack_of(Candidate("torch-cpu", Precision.FP32, ("compile",)))
    assert lack
    assert repr(word) in lack.reason
    assert lack.remedy
    assert not found.lack_of(Candidate("torch-cpu", Precision.FP32))


@pytest.mark.slow
@pytest.mark.parametrize("word", [None, "clang++-17"])
def test_the_compiler_looked_for_is_torchinductors(word: str | None) -> None:
    """TorchInductor reads the environment when it is imported, so in a process of its own."""
    program = "import torch._inductor.config as c, runtimes.torch_cpu as ours; print(c.cpp.cxx[-1], ours._compiler())"
    environment = {name: value for name, value in os.environ.items() if name != "CXX"} | ({"CXX": word} if word else {})
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    theirs, ours = done.stdout.split()
    assert theirs == ours == (word or ours)


@pytest.mark.parametrize(("precision", "dtype"), [(Precision.FP32, "float32"), (Precision.BF16, "bfloat16")])
def test_weights_are_of_the_precision_and_the_model_is_in_eval_mode(
    tiny_checkpoint: Path, precision: Precision, dtype: str
) -> None:
    with EngineRuntime(tiny_checkpoint, precision, 1) as runtime:
        floating = {str(item.dtype) for item in runtime.model.parameters() if item.is_floating_point()}
        assert floating == {f"torch.{dtype}"}
        assert runtime.info.dtype == dtype
        assert not any(module.training for module in runtime.model.modules())
        assert runtime.info.device == "cpu"
        assert runtime.info.options == {
            "autocast": "false",
            "compile": "false",
            "float32_matmul_precision": "highest",
        }


def test_bf16_computes_in_bf16(tiny_checkpoint: Path) -> None:
    answers = []
    for precision in (Precision.FP32, Precision.BF16):
        with EngineRuntime(tiny_checkpoint, precision, 1) as runtime:
            answers.append(runtime.run(BATCH)["logits"])
    assert not np.allclose(answers[0], answers[1], atol=1e-5)
    assert np.array_equal(answers[1], torch.tensor(answers[1]).bfloat16().float().numpy())


def test_threads_that_torch_does_not_give_are_an_error(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with (
        pytest.raises(UserError, match="asked PyTorch for 2 threads, got 1"),
        EngineRuntime(tiny_checkpoint, Precision.FP32, 2),
    ):
        pass


class Stubborn(torch.nn.Linear):
    """Takes no cast."""

    def to(self, *args: object, **kwargs: object) -> "Stubborn":
        return self


def test_a_cast_that_does_not_take_is_an_error(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda directory, task: Stubborn(2, 2))
    with (
        pytest.raises(UserError, match=r"asked for torch.bfloat16 on cpu, got torch.float32 on cpu"),
        EngineRuntime(tiny_checkpoint, Precision.BF16, 1),
    ):
        pass


def test_a_checkpoint_without_all_weights_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with (
        pytest.raises(UserError, match=r"lacks the weights classifier\.weight"),
        EngineRuntime(folder, Precision.FP32, 1),
    ):
        pass


def test_answers_need_no_gradients_and_no_device_memory(tiny_checkpoint: Path) -> None:
    with EngineRuntime(tiny_checkpoint, Precision.FP32, 1) as runtime:
        seen: list[bool] = []
        runtime.model.register_forward_hook(lambda *rest: seen.append(torch.is_grad_enabled()))
        runtime.run(BATCH)
        assert seen == [False]
        assert runtime.peak_device_bytes() is None
