"""TensorRT without a GPU: what it asks for, what it refuses, on a fake onnxruntime."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from artifact.precision import Precision
from errors import UserError
from runtimes import ort_tensorrt
from runtimes.base import Candidate
from runtimes.registry import entry
from tests.runtimes.gpu import CPU, CUDA, TENSORRT, Session, session

__all__ = ["session"]
BATCH = {"input_ids": np.array([[1, 2], [3, 4]])}


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    before = os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    yield
    os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    if before is not None:
        os.environ["NVIDIA_TF32_OVERRIDE"] = before


def test_a_build_without_tensorrt_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # nothing may be opened
    found = ort_tensorrt.probe()
    assert (found.available, found.reason) == (False, f"this onnxruntime {onnxruntime.__version__} has no {TENSORRT}")
    with pytest.raises(UserError, match=f"has no {TENSORRT}"), ort_tensorrt.EngineRuntime(Path("m"), Precision.FP32, 1):
        pass


def test_libraries_that_do_not_load_are_a_reason(session: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: Any) -> None:
        raise RuntimeError("libnvinfer.so.10: cannot open\nshared object file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    found = ort_tensorrt.probe()
    assert (found.available, found.device) == (False, None)
    assert found.reason == "TensorRT does not load: libnvinfer.so.10: cannot open shared object file"
    assert found.remedy
    assert "tensorrt" in found.remedy


def test_a_session_that_leaves_tensorrt_out_is_a_reason(session: type[Session]) -> None:
    session.providers = [CUDA]
    found = ort_tensorrt.probe()
    assert not found.available
    assert found.reason == "TensorRT does not load: ONNX Runtime left it out of a session"


def test_the_graph_that_is_tried_is_one() -> None:
    opened = onnxruntime.InferenceSession(ort_tensorrt.SMALL_GRAPH, providers=[CPU])
    assert opened.run(None, {"x": np.array([-1, 2], dtype=np.float32)})[0].tolist() == [0, 2]


@pytest.mark.parametrize(("precision", "fp16"), [("fp32", "0"), ("fp16", "1")])
def test_tensorrt_comes_first_and_cuda_alone_may_help(session: type[Session], precision: str, fp16: str) -> None:
    with ort_tensorrt.EngineRuntime(Path("m"), Precision(precision), 1) as runtime:
        opened = runtime.session
        assert list(opened.asked.items()) == [(TENSORRT, {"trt_fp16_enable": fp16}), (CUDA, {"use_tf32": "0"})]
        assert opened.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        options = runtime.info.options
        assert (options["trt_fp16_enable"], options[f"{CUDA}.use_tf32"]) == (fp16, "0")
        assert options["NVIDIA_TF32_OVERRIDE"] == os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        assert runtime.run(BATCH)["logits"].tolist() == [[3, 2], [7, 4]]
        compute = runtime.bind(BATCH)
        assert compute
        compute()
        assert opened.computed == [BATCH["input_ids"].tolist()] * 2
    assert entry("ort-tensorrt").graph(Candidate("ort-tensorrt", Precision(precision))) is Precision.FP32
    assert not entry("ort-tensorrt").portable


@pytest.mark.parametrize("placement", [{CUDA: 42}, {}, {TENSORRT: 0, CUDA: 42}])
def test_a_session_without_a_node_on_tensorrt_is_refused(session: type[Session], placement: dict[str, int]) -> None:
    session.placement = placement
    runtime = ort_tensorrt.EngineRuntime(Path("m"), Precision.FP32, 1)
    with pytest.raises(UserError, match=f"placed no node on {TENSORRT}"), runtime:
        pass


def test_fp16_that_did_not_take_is_refused(session: type[Session]) -> None:
    session.takes = {"trt_fp16_enable": "0"}
    with (
        pytest.raises(UserError, match=r"asked onnxruntime for trt_fp16_enable=1 .* got 0"),
        ort_tensorrt.EngineRuntime(Path("m"), Precision.FP16, 1),
    ):
        pass
