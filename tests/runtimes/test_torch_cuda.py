"""PyTorch on a GPU, without one: it says so, and never runs on the CPU instead; the rest with the CPU as the device."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.precision import Precision
from errors import UserError
from models import checkpoint as loading
from runtimes import torch_cpu, torch_cuda
from runtimes.base import Batch
from runtimes.options import TorchCudaOptions
from runtimes.torch_cuda import EngineRuntime, Staging
from tests.runtimes.conftest import BATCH

CPU = torch.device("cpu")


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
    monkeypatch.setattr(loading, "load_model", lambda directory, task: Stuck(2, 2))
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

    def look(directory: Path, task: None) -> None:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        raise UserError("seen enough")

    monkeypatch.setattr(loading, "load_model", look)
    with pytest.raises(UserError, match="seen enough"), torch_cuda.EngineRuntime(tiny_checkpoint, precision, 1):
        pass
    tf32 = precision is Precision.TF32
    assert seen == [("high" if tf32 else "highest", tf32)]


def test_graphs_need_something_compiled() -> None:
    with pytest.raises(UserError, match="no compiled graph to record"):
        EngineRuntime(Path("m"), Precision.BF16, 1, TorchCudaOptions(cuda_graphs=True))
    EngineRuntime(Path("m"), Precision.BF16, 1, TorchCudaOptions(cuda_graphs=True, compile=True))


@pytest.mark.parametrize("graphs", [True, False])
def test_torchinductor_knows_what_it_is_told(graphs: bool) -> None:
    """torch.compile refuses names that it does not know."""
    options = EngineRuntime(
        Path("m"), Precision.FP32, 1, TorchCudaOptions(compile=True, cuda_graphs=graphs)
    )._inductor_options()
    torch.compile(torch.nn.Linear(1, 1), options={**options})
    assert options.get("triton.cudagraphs", False) is graphs
    assert options.get("triton.cudagraph_or_error", False) is graphs
    with pytest.raises(RuntimeError, match="Unexpected optimization option"):
        torch.compile(torch.nn.Linear(1, 1), options={"triton.cudagraph": True})


class Desk:
    """Counts what is allocated and awaited, and lets the device finish late."""

    def __init__(self) -> None:
        self.allocated: list[int] = []
        self.waited = 0

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        self.allocated.append(shape[0])
        return torch.zeros(shape, dtype=dtype)

    def wait(self, device: torch.device) -> None:
        self.waited += 1


@pytest.fixture
def desk() -> Desk:
    return Desk()


def batch_of(rows: int, length: int, value: int = 1) -> Batch:
    return {name: np.full((rows, length), value, dtype=np.int64) for name in BATCH}


def test_buffers_are_used_again_and_grow_with_the_batch(desk: Desk) -> None:
    staging = Staging(CPU, desk.allocate, desk.wait)
    for rows, length in ((2, 8), (2, 8), (1, 4), (4, 3), (5, 8), (2, 8)):
        tensors = staging.to_device(batch_of(rows, length, rows))
        assert {(tuple(item.shape), int(item.min()), int(item.max())) for item in tensors.values()} == {
            ((rows, length), rows, rows)
        }
        staging.to_host(torch.ones(rows, 2))
    inputs, outputs = [2 * 8, 5 * 8], [2 * 2, 4 * 2, 5 * 2]
    assert sorted(desk.allocated) == sorted(inputs * 3 + outputs)
    assert desk.waited == 6


def test_views_are_staged_as_they_look(desk: Desk) -> None:
    array = np.arange(24).reshape(4, 6)
    for view in (array[::2, ::-1], array.T):
        staged = Staging(CPU, desk.allocate, desk.wait).to_device({"input_ids": view})["input_ids"]
        np.testing.assert_array_equal(staged.numpy(), view)


def test_answers_are_read_after_the_device_has_finished_and_belong_to_the_caller() -> None:
    buffers: list[torch.Tensor] = []

    def allocate(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        buffers.append(torch.zeros(shape, dtype=dtype))
        return buffers[-1]

    def late(device: torch.device) -> None:
        buffers[0].fill_(7)

    staging = Staging(CPU, allocate, late)
    first = staging.to_host(torch.ones(2, 2, dtype=torch.bfloat16))
    assert first.dtype == np.float32
    assert first.tolist() == [[7, 7], [7, 7]]
    buffers[0].fill_(8)
    assert first.tolist() == [[7, 7], [7, 7]]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch, desk: Desk, torch_sees_a_gpu: None) -> None:
    """The runtime with the CPU for its device."""

    class Here(EngineRuntime):
        def __init__(self, *rest: object) -> None:
            super().__init__(*rest)  # type: ignore[arg-type]
            self._device = CPU

    monkeypatch.setattr(torch_cuda, "EngineRuntime", Here)
    monkeypatch.setattr(torch_cuda, "Staging", partial(Staging, allocate=desk.allocate, wait=desk.wait))
    monkeypatch.setattr(torch_cuda, "finish", desk.wait)


@pytest.fixture
def answers(tiny_checkpoint: Path) -> dict[int, np.ndarray]:
    with torch_cpu.EngineRuntime(tiny_checkpoint, Precision.FP32, 1) as runtime:
        return {rows: runtime.run(batch_of(rows, 4))["logits"] for rows in (1, 2, 3)}


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("pinned", [True, False])
def test_answers_are_those_of_the_cpu_from_many_threads(
    tiny_checkpoint: Path, answers: dict[int, np.ndarray], desk: Desk, pinned: bool
) -> None:
    options = TorchCudaOptions(pinned=pinned)
    with (
        torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1, options) as runtime,
        ThreadPoolExecutor(4) as pool,
    ):
        rows = [1, 2, 3] * 10
        for number, found in zip(rows, pool.map(lambda size: runtime.run(batch_of(size, 4)), rows), strict=True):
            np.testing.assert_allclose(found["logits"], answers[number], atol=1e-5)
    assert desk.waited == (30 if pinned else 0)
    assert bool(desk.allocated) is pinned
    assert len(desk.allocated) <= 4 * 4 * 3  # four callers, three inputs and an output, three sizes


@pytest.mark.usefixtures("on_cpu")
def test_a_bound_batch_is_computed_at_each_call_until_the_device_is_done(tiny_checkpoint: Path, desk: Desk) -> None:
    with torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1) as runtime:
        shapes: list[tuple[int, ...]] = []
        runtime.model.register_forward_hook(lambda module, rest, output: shapes.append(tuple(output.logits.shape)))
        compute = runtime.bind(batch_of(3, 4))
        assert compute
        assert (shapes, desk.waited) == ([], 0)
        compute()
        compute()
        assert (shapes, desk.waited) == ([(3, 2), (3, 2)], 2)
        assert desk.allocated == []


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("name", "number"), [("input_ids", 10_000), ("input_ids", -1), ("token_type_ids", 2)])
def test_an_index_without_a_row_does_not_reach_the_device(tiny_checkpoint: Path, name: str, number: int) -> None:
    with torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1) as runtime:
        runtime.model.register_forward_hook(lambda *rest: pytest.fail("it computed"))
        for ask in (runtime.run, runtime.bind):
            with pytest.raises(UserError, match=rf"cannot run a batch of shape \(2, 8\): {name} has numbers outside"):
                ask({**BATCH, name: np.full((2, 8), number)})


@pytest.mark.usefixtures("on_cpu")
def test_buffers_of_a_run_that_failed_are_not_used_again(tiny_checkpoint: Path, desk: Desk) -> None:
    with torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1) as runtime:
        runtime.run(BATCH)
        once = len(desk.allocated)
        with pytest.raises(UserError, match="cannot run a batch of shape"):
            runtime.run(batch_of(1, 500))  # more positions than the model has
        desk.allocated.clear()
        runtime.run(BATCH)
        assert len(desk.allocated) == once


@pytest.mark.usefixtures("on_cpu")
def test_one_caller_at_a_time_computes_with_cuda_graphs(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is replaced by a call that notes who is inside; each step is marked before it."""
    steps: list[str] = []
    inside: list[int] = []

    def call(**tensors: torch.Tensor) -> torch.Tensor:
        steps.append("call")
        inside.append(1)
        time.sleep(0.001)
        assert len(inside) == 1, "two callers at once"
        inside.pop()
        return torch.zeros(len(tensors["input_ids"]), 2)

    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append("mark"))
    monkeypatch.setattr(torch, "compile", lambda model, **rest: call)
    options = TorchCudaOptions(compile=True, cuda_graphs=True)
    with (
        torch_cuda.EngineRuntime(tiny_checkpoint, Precision.FP32, 1, options) as runtime,
        ThreadPoolExecutor(4) as pool,
    ):
        assert steps == ["mark", "call"] * 3 * 2  # warmed up, recorded and replayed for each shape of the entry
        list(pool.map(runtime.run, [BATCH] * 20))
        assert steps == ["mark", "call"] * 26
