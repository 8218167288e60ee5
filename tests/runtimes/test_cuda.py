"""The GPU runtimes on a machine without a GPU: they say so, and never run on the CPU instead."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from artifact.precision import Precision
from errors import UserError
from models import checkpoint as loading
from runtimes import ort_cuda, torch_cuda

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class FakeSession:
    """Reports a provider and a placement."""

    provider = CUDA
    placement: dict[str, int] = {CUDA: 40, CPU: 2}  # noqa: RUF012

    def __init__(self, path: str, options: Any, providers: list[str], disabled_optimizers: list[str]) -> None:
        assert providers == [CUDA]
        assert options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        self.options = options

    def get_providers(self) -> list[str]:
        return [self.provider, CPU]

    def get_session_options(self) -> Any:
        return self.options

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="input_ids")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits")]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in self.placement.items()
        ]

    def run(self, names: list[str], batch: dict[str, Any]) -> list[Any]:
        return [np.zeros((len(batch["input_ids"]), 2), dtype=np.float32)]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    """An onnxruntime that has CUDA."""

    class Session(FakeSession):
        pass

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    return Session


def test_onnxruntime_without_cuda_is_unavailable_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # nothing may be opened
    found = ort_cuda.probe()
    assert not found.available
    assert found.reason == f"this onnxruntime {onnxruntime.__version__} has no {CUDA}"
    assert found.remedy
    assert "steelyard[gpu]" in found.remedy
    assert found.device is None
    with pytest.raises(UserError, match=f"has no {CUDA}"), ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1):
        pass


def test_a_session_with_nodes_on_cuda_is_accepted_and_its_placement_told(session: type[FakeSession]) -> None:
    assert ort_cuda.probe().available
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 3) as runtime:
        assert runtime.info.nodes_by_provider == {CUDA: 40, CPU: 2}
        assert (runtime.info.device, runtime.info.threads) == ("cuda:0", 3)


def test_a_session_that_fell_back_to_the_cpu_is_refused(session: type[FakeSession]) -> None:
    session.provider = CPU
    with (
        pytest.raises(UserError, match=f"asked onnxruntime for {CUDA}, got {CPU}"),
        ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1),
    ):
        pass


@pytest.mark.parametrize("placement", [{CPU: 42}, {}, {CUDA: 0, CPU: 42}])
def test_a_session_without_a_node_on_cuda_is_refused(session: type[FakeSession], placement: dict[str, int]) -> None:
    session.placement = placement
    runtime = ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1)
    with pytest.raises(UserError, match=f"placed no node on {CUDA}"), runtime:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        runtime.run({"input_ids": np.ones((1, 2), dtype=np.int64)})


def test_a_missing_driver_is_a_reason(session: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(UserError, match=r"libcudart\.so\.12"), ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1):
        pass


@pytest.fixture
def torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Test GPU")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("cuda", "reason"), [(None, "was built without CUDA"), ("13.0", "finds no CUDA GPU")], ids=["build", "driver"]
)
def test_torch_without_a_gpu_is_unavailable_and_refuses(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, cuda: str | None, reason: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = torch_cuda.probe()
    assert not found.available
    assert found.reason
    assert reason in found.reason
    assert found.remedy
    with pytest.raises(UserError, match=reason), torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1):
        pass


@pytest.mark.usefixtures("torch_sees_a_gpu")
def test_a_model_that_stays_on_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    class Stuck(torch.nn.Linear):
        def to(self, *args: object, **kwargs: object) -> "Stuck":
            return self

    assert torch_cuda.probe().device == "Test GPU"
    monkeypatch.setattr(loading, "load_model", lambda directory: Stuck(2, 2))
    with (
        pytest.raises(UserError, match=r"asked for torch\.float32 on cuda:0, got torch\.float32 on cpu"),
        torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1),
    ):
        pass


@pytest.mark.usefixtures("torch_sees_a_gpu")
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.TF32, Precision.BF16])
def test_tf32_is_used_only_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, precision: Precision
) -> None:
    """In matrix products and, where torch allows it by default, in convolutions."""
    seen = []

    def look(directory: Path) -> None:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        raise UserError("seen enough")

    monkeypatch.setattr(loading, "load_model", look)
    with pytest.raises(UserError, match="seen enough"), torch_cuda.EngineRuntime(tiny_checkpoint, precision, 1):
        pass
    tf32 = precision is Precision.TF32
    assert seen == [("high" if tf32 else "highest", tf32)]


class NvmlError(Exception):
    """As pynvml's."""


def nvml(monkeypatch: pytest.MonkeyPatch, error: NvmlError | None) -> None:
    """An NVML that finds one H100, or raises."""

    def init() -> None:
        if error:
            raise error

    fake = SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: "NVIDIA H100",
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)


@pytest.mark.usefixtures("session")
def test_a_build_with_cuda_without_a_driver_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, NvmlError("Driver Not Loaded"))
    found = ort_cuda.probe()
    assert (found.available, found.device) == (False, None)
    assert found.reason == "NVML finds no GPU: Driver Not Loaded"
    assert found.remedy


@pytest.mark.usefixtures("session")
def test_the_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, None)
    assert (ort_cuda.probe().available, ort_cuda.probe().device) == (True, "NVIDIA H100")
