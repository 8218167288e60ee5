"""Language models on ONNX Runtime's CUDA provider without a GPU: the CPU computes, and says that it is one.

What is bound to the device is counted, and so is what goes there and comes back.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import UserError
from runtimes.language import LanguageRuntime
from runtimes.ort_cuda_language import EngineLanguage
from tests.runtimes.refused import check_refused

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
IDS = np.array([[5, 9, 13, 7, 21, 6], [8, 6, 30, 11, 12, 40]])
REAL = onnxruntime.InferenceSession, onnxruntime.OrtValue.ortvalue_from_numpy


class Desk:
    """Where attention is placed, and the arrays that were sent to the device and the sizes that came back."""

    def __init__(self) -> None:
        self.attention = CUDA
        self.sent: list[tuple[int, ...]] = []
        self.back: list[tuple[int, ...]] = []
        self.bound: list[str] = []

    def send(self, array: NDArray[Any], device: str = "cpu", number: int = 0) -> Any:
        if device == "cuda":
            self.sent.append(array.shape)
        return REAL[1](array)


class Binding:
    """A binding of the CPU whose device is called cuda."""

    def __init__(self, real: Any, desk: Desk) -> None:
        self._real, self._desk = real, desk
        self._to_host: list[bool] = []

    def bind_cpu_input(self, name: str, array: NDArray[Any]) -> None:
        self._desk.sent.append(array.shape)
        self._real.bind_cpu_input(name, array)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self._real.bind_ortvalue_input(name, value)

    def bind_input(self, name: str, device: str, *place: Any) -> None:
        assert device == "cuda"
        self._desk.bound.append(name)
        self._real.bind_input(name, "cpu", *place)

    def bind_output(self, name: str, device: str, *place: Any) -> None:
        self._to_host.append(device == "cpu")
        self._real.bind_output(name, "cpu", *place)

    def get_outputs(self) -> list[Any]:
        found: list[Any] = self._real.get_outputs()
        self._desk.back += [tuple(item.shape()) for item, back in zip(found, self._to_host, strict=True) if back]
        return found


class Session:
    """A session of the CPU that says it is one of CUDA."""

    def __init__(self, real: Any, asked: dict[str, dict[str, str]], desk: Desk) -> None:
        self._real, self._asked, self._desk = real, asked, desk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {**self._asked, CPU: {}}

    def get_provider_graph_assignment_info(self) -> list[Any]:
        attention, other = (SimpleNamespace(op_type=name) for name in ("GroupQueryAttention", "MatMul"))
        return [
            SimpleNamespace(ep_name=CUDA, get_nodes=lambda: [other]),
            SimpleNamespace(ep_name=self._desk.attention, get_nodes=lambda: [attention]),
        ]

    def io_binding(self) -> Binding:
        return Binding(self._real.io_binding(), self._desk)

    def run_with_iobinding(self, binding: Binding) -> None:
        self._real.run_with_iobinding(binding._real)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()

    def opened(path: str, options: Any, *, providers: list[Any], **rest: Any) -> Session:
        asked = dict(providers)
        return Session(REAL[0](path, options, providers=[CPU]), asked, desk)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", desk.send)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    return desk


def graph(run: Path, precision: Precision, name: str = "model.onnx") -> Path:
    return RunFolder(run).variant(precision) / name


def steps(runtime: LanguageRuntime, ids: NDArray[np.int64], read: Any) -> NDArray[np.float32]:
    continuing = runtime.begin(len(ids), ids.shape[1], read)
    found = [continuing.prompt(ids[:, :1].tolist()), *(continuing.step(ids[:, at]) for at in range(1, ids.shape[1]))]
    continuing.rewind(2)
    np.testing.assert_array_equal(continuing.step(ids[:, 2]), found[2])
    return np.stack(found, axis=1)


def test_the_cache_stays_on_the_device(desk: Desk, language_run: Path, learnt_llama: Path) -> None:
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(learnt_llama)(torch.from_numpy(IDS)).logits.numpy()
    with EngineLanguage(graph(language_run, Precision.FP16), Precision.FP16, 1) as runtime:
        assert (runtime.info.runtime, runtime.info.device) == ("ort-cuda", "cuda:0")
        found = steps(runtime, IDS, {})
        whole = runtime.every(IDS, np.ones_like(IDS))
    cache = (2, 2, 6, 16)  # rows, heads, positions, size
    assert desk.sent.count(cache) == 2 * 2 == len(desk.bound)  # keys and values of each layer, once
    assert {shape for shape in desk.sent if shape != cache} == {(2, 1), *((2, total) for total in range(1, 7))}
    assert set(desk.back) == {(2, 1, expected.shape[-1])}
    for logits in (found, whole):
        assert np.abs(logits - expected).max() <= 5e-3 * np.abs(expected).max()


def test_what_an_encoder_read_stays_on_the_device(desk: Desk, rewriting_run: Path, learnt_t5: Path) -> None:
    read = {"input_ids": IDS, "attention_mask": np.array([[1] * 6, [1] * 2 + [0] * 4])}
    model = AutoModelForSeq2SeqLM.from_pretrained(learnt_t5)
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in read.items()}
        expected = model(**given, decoder_input_ids=torch.from_numpy(IDS)).logits.numpy()
    with EngineLanguage(graph(rewriting_run, Precision.FP16, "decoder.onnx"), Precision.FP16, 1) as runtime:
        found = steps(runtime, IDS, read)
    assert set(desk.back) == {(2, 1, expected.shape[-1])}  # no key, no value
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()


def test_a_cache_on_the_host_is_refused(desk: Desk, language_run: Path) -> None:
    desk.attention = CPU
    with (
        pytest.raises(UserError, match=f"placed GroupQueryAttention of .* on {CPU}"),
        EngineLanguage(graph(language_run, Precision.INT4), Precision.INT4, 1),
    ):
        pass


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("number", [115, -1])
def test_an_id_that_the_table_does_not_have_never_reaches_the_gpu(language_run: Path, number: int) -> None:
    """The real one answers it with zeros and says nothing."""
    with EngineLanguage(graph(language_run, Precision.FP16), Precision.FP16, 1) as runtime:
        check_refused(runtime, number)
        continuing = runtime.begin(1, 4)
        continuing.prompt([[1, 2]])
        with pytest.raises(UserError, match="a prompt has 5 tokens, and the cache room for 4"):
            continuing.prompt([[1, 2, 3, 4, 5]])


def test_without_cuda_it_refuses(language_run: Path) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("there is CUDA")
    with (
        pytest.raises(UserError, match=f"has no {CUDA}"),
        EngineLanguage(graph(language_run, Precision.FP16), Precision.FP16, 1),
    ):
        pass
