"""ONNX Runtime on a GPU, without one: it says so, and never runs on the CPU instead; the rest on a fake."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from artifact.precision import Precision
from errors import UserError
from runtimes import ort_cuda
from runtimes.base import Batch, Candidate
from runtimes.options import ORT_CUDA, OrtCudaOptions
from runtimes.registry import entry
from tests.runtimes.gpu import CPU, CUDA, TABLE_ROWS, TENSORRT, Session, Value, session

__all__ = ["session"]
GRAPH = replace(ORT_CUDA, cuda_graph=True)


def ids(rows: int, length: int, seed: int = 0) -> Batch:
    return {"input_ids": np.random.default_rng([seed, rows, length]).integers(0, 99, (rows, length))}


def expected(batch: Batch) -> NDArray[np.float32]:
    found = batch["input_ids"]
    return np.stack([found.sum(1), found.max(1)], axis=1).astype(np.float32)


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


def test_a_session_with_nodes_on_cuda_is_accepted_and_its_placement_told(session: type[Session]) -> None:
    assert ort_cuda.probe().available
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 3) as runtime:
        assert runtime.info.nodes_by_provider == {TENSORRT: 1, CUDA: 40, CPU: 2}
        assert (runtime.info.device, runtime.info.threads) == ("cuda:0", 3)


@pytest.mark.parametrize("options", [ORT_CUDA, GRAPH], ids=["plain", "graph"])
@pytest.mark.parametrize("number", [TABLE_ROWS, -1])
def test_a_number_that_the_table_does_not_have_never_reaches_the_gpu(
    session: type[Session], options: OrtCudaOptions, number: int
) -> None:
    """The real one answers it with zeros and says nothing."""
    batch = {"input_ids": np.array([[1, number]])}
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, options) as runtime:
        for call in (runtime.run, runtime.bind):
            with pytest.raises(UserError, match="input_ids has numbers outside 0 to 98"):
                call(batch)
        assert not session.opened[-1].computed
        runtime.run(ids(1, 3))


def test_a_session_that_fell_back_to_the_cpu_is_refused(session: type[Session]) -> None:
    session.providers = [CPU]
    with (
        pytest.raises(UserError, match=f"asked onnxruntime for {CUDA}, got {CPU}"),
        ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1),
    ):
        pass


@pytest.mark.parametrize("placement", [{CPU: 42}, {}, {CUDA: 0, CPU: 42}])
def test_a_session_without_a_node_on_cuda_is_refused(session: type[Session], placement: dict[str, int]) -> None:
    session.placement = placement
    runtime = ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1)
    with pytest.raises(UserError, match=f"placed no node on {CUDA}"), runtime:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        runtime.run({"input_ids": np.ones((1, 2), dtype=np.int64)})


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0"), ("bf16", "0")])
def test_tf32_is_used_only_where_it_was_asked_for(session: type[Session], precision: str, tf32: str) -> None:
    """ONNX Runtime would use it unasked."""
    with ort_cuda.EngineRuntime(Path("m"), Precision(precision), 1) as runtime:
        assert runtime.session.asked == {CUDA: {"use_tf32": tf32, "enable_cuda_graph": "0"}}
        assert runtime.info.options["use_tf32"] == tf32
        assert runtime.info.options["device_id"] == "0"  # told by the session alone


def test_tf32_loads_the_fp32_graph() -> None:
    assert entry("ort-cuda").graph(Candidate("ort-cuda", Precision.TF32)) is Precision.FP32


@pytest.mark.parametrize(
    ("precision", "options", "takes", "message"),
    [
        ("fp32", ORT_CUDA, {"use_tf32": "1"}, "asked onnxruntime for use_tf32=0 on CUDAExecutionProvider, got 1"),
        ("tf32", ORT_CUDA, {"use_tf32": "0"}, "asked onnxruntime for use_tf32=1 on CUDAExecutionProvider, got 0"),
        ("fp16", GRAPH, {"enable_cuda_graph": "0"}, "asked onnxruntime for enable_cuda_graph=1 .* got 0"),
    ],
)
def test_provider_options_that_did_not_take_are_refused(
    session: type[Session], precision: str, options: OrtCudaOptions, takes: dict[str, str], message: str
) -> None:
    session.takes = takes
    runtime = ort_cuda.EngineRuntime(Path("m"), Precision(precision), 1, options)
    with pytest.raises(UserError, match=message), runtime:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        runtime.run(ids(1, 2))


@pytest.mark.parametrize("fallback", [True, False])
def test_nodes_on_the_cpu_are_forbidden_when_asked(session: type[Session], fallback: bool) -> None:
    options = replace(ORT_CUDA, cpu_fallback=fallback)
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, options) as runtime:
        found = runtime.session.options.get_session_config_entry
        if fallback:
            with pytest.raises(RuntimeError, match="disable_cpu_ep_fallback"):
                found("session.disable_cpu_ep_fallback")
        else:
            assert found("session.disable_cpu_ep_fallback") == "1"
        assert runtime.info.options["cpu_fallback"] == str(fallback).lower()


@pytest.mark.parametrize("options", [ORT_CUDA, GRAPH], ids=["plain", "graph"])
def test_answers_are_right_for_every_shape_and_again(session: type[Session], options: OrtCudaOptions) -> None:
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, options) as runtime:
        for seed, shape in enumerate([(1, 2), (2, 3), (1, 2), (3, 1), (2, 3), (1, 2)]):
            batch = ids(*shape, seed=seed)
            np.testing.assert_array_equal(runtime.run(batch)["logits"], expected(batch))
        assert len(runtime.session.captured) == (3 if options is GRAPH else 0)
        assert runtime.session.replays == (6 if options is GRAPH else 0)


def test_views_and_answers_are_the_callers_own(session: type[Session]) -> None:
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, GRAPH) as runtime:
        for _ in range(2):  # captured, replayed
            batch = {"input_ids": ids(4, 6)["input_ids"][::2, ::-1]}
            answer = runtime.run(batch)["logits"]
            np.testing.assert_array_equal(answer, expected(batch))
            runtime.run({"input_ids": batch["input_ids"] + 1})
            np.testing.assert_array_equal(answer, expected(batch))


def test_a_graph_serves_one_caller_at_a_time(session: type[Session]) -> None:
    """The fake refuses two at once, as the driver may."""
    with (
        ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, GRAPH) as runtime,
        ThreadPoolExecutor(4) as pool,
    ):
        batches = [ids(1 + seed % 3, 4, seed=seed) for seed in range(40)]
        for batch, answers in zip(batches, pool.map(runtime.run, batches), strict=True):
            np.testing.assert_array_equal(answers["logits"], expected(batch))


@pytest.mark.parametrize("options", [ORT_CUDA, GRAPH], ids=["plain", "graph"])
def test_a_bound_batch_is_copied_once_and_computed_at_each_call(
    session: type[Session], options: OrtCudaOptions
) -> None:
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, options) as runtime:
        batch, other = ids(2, 3), ids(2, 3, seed=1)
        runtime.run(other)
        compute = runtime.bind(batch)
        assert compute
        made, opened = Value.made, runtime.session
        for _ in range(2):
            before, waited = len(opened.computed), sum(binding.waited for binding in opened.bindings)
            compute()
            assert opened.computed[before:] == [batch["input_ids"].tolist()]
            assert sum(binding.waited for binding in opened.bindings) == waited + 1
            assert Value.made == made
            np.testing.assert_array_equal(runtime.run(other)["logits"], expected(other))
            made = Value.made


def test_a_forgotten_call_leaves_its_graph_to_others(session: type[Session]) -> None:
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1, GRAPH) as runtime:
        for seed in range(5):
            calls = [runtime.bind(ids(2, 3, seed=seed)), runtime.bind(ids(2, 3, seed=seed + 9))]
            assert all(calls)
            del calls
            gc.collect()
        assert len(runtime.session.captured) == 2


def test_a_batch_that_does_not_fit_is_not_bound(session: type[Session]) -> None:
    with ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1) as runtime, pytest.raises(UserError, match="int64"):
        runtime.bind({"input_ids": np.ones((1, 2), dtype=np.int32)})


def test_what_is_executed_is_watched_without_a_graph(session: type[Session]) -> None:
    with ort_cuda.EngineRuntime(Path("m"), Precision.TF32, 1, GRAPH) as runtime:
        with pytest.raises(AttributeError, match="end_profiling"):  # as far as the fake goes
            runtime.executed(ids(1, 2))
        first, second = session.opened
        assert first.asked[CUDA] == {"use_tf32": "1", "enable_cuda_graph": "1"}
        assert second.asked[CUDA] == {"use_tf32": "1", "enable_cuda_graph": "0"}


def test_a_missing_driver_is_a_reason(session: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(UserError, match=r"libcudart\.so\.12"), ort_cuda.EngineRuntime(Path("m"), Precision.FP32, 1):
        pass


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
