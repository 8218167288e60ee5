"""Language models in PyTorch on a GPU, with the CPU as the device."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from artifact.precision import Precision
from errors import UserError
from runtimes.torch_cuda_language import EngineLanguage
from tests.runtimes.refused import check_refused
from tests.runtimes.test_torch_cuda import torch_sees_a_gpu

__all__ = ["torch_sees_a_gpu"]

IDS = np.array([[5, 9, 13, 7, 21, 6], [8, 6, 30, 11, 12, 40]])


class Here(EngineLanguage):
    """The engine with the CPU for its device."""

    def __init__(self, model: Path, precision: Precision) -> None:
        super().__init__(model, precision, 1)
        self._device = torch.device("cpu")


def test_without_a_gpu_it_refuses(learnt_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(UserError, match="finds no CUDA GPU"), EngineLanguage(learnt_llama, Precision.FP32, 1):
        pass


@pytest.mark.usefixtures("torch_sees_a_gpu")
@pytest.mark.parametrize("precision", [Precision.TF32, Precision.FP16])
def test_it_says_what_pytorch_says(learnt_llama: Path, precision: Precision) -> None:
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(learnt_llama)(torch.from_numpy(IDS)).logits.numpy()
    tf32 = precision is Precision.TF32
    with Here(learnt_llama, precision) as runtime:
        assert runtime.info.runtime == "torch-cuda"
        assert runtime.info.dtype == ("float32" if tf32 else "float16")
        assert runtime.info.options["float32_matmul_precision"] == ("high" if tf32 else "highest")
        assert torch.backends.cudnn.allow_tf32 is tf32
        continuing = runtime.begin(2, 6)
        found = [continuing.prompt(IDS[:, :3].tolist()), *(continuing.step(IDS[:, at]) for at in (3, 4, 5))]
        continuing.rewind(4)
        np.testing.assert_allclose(continuing.step(IDS[:, 4]), found[2], atol=1e-5)
    assert np.abs(np.stack(found, axis=1) - expected[:, 2:]).max() <= 5e-3 * np.abs(expected).max()


@pytest.mark.usefixtures("torch_sees_a_gpu")
def test_an_id_without_a_row_does_not_reach_the_device(learnt_llama: Path) -> None:
    with Here(learnt_llama, Precision.FP32) as runtime:
        runtime.model.register_forward_hook(lambda *rest: pytest.fail("it computed"))
        check_refused(runtime, 115)


@pytest.mark.usefixtures("torch_sees_a_gpu")
def test_a_model_that_stays_on_the_cpu_is_refused(learnt_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, **rest: model)
    with (
        pytest.raises(UserError, match=r"asked for torch\.float32 on cuda:0, got torch\.float32 on cpu"),
        EngineLanguage(learnt_llama, Precision.FP32, 1),
    ):
        pass
