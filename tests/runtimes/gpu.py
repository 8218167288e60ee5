"""An onnxruntime that seems to have a GPU: sessions that place nodes, values on a device, and CUDA graphs.

As the real one, a graph that was captured reads and writes the memory that was bound at its capture, whatever is bound
when it is replayed.
"""

import threading
import time
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from runtimes import ort_gpu

CUDA, CPU, TENSORRT = "CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"
TABLE_ROWS = 99


class Value:
    """An array on the device; what goes there or comes back is copied."""

    made = 0

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array.copy()

    @classmethod
    def ortvalue_from_numpy(cls, array: NDArray[Any], device: str, number: int) -> Self:
        assert (device, number) == ("cuda", 0)
        assert array.flags.c_contiguous
        Value.made += 1
        return cls(array)

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def update_inplace(self, array: NDArray[Any]) -> None:
        assert array.shape == self.array.shape
        self.array[...] = array

    def numpy(self) -> NDArray[Any]:
        return self.array.copy()


class Binding:
    """What is bound; an output without a value is allocated by the run."""

    def __init__(self) -> None:
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value | None] = {}
        self.waited = 0

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value

    def bind_output(self, name: str, device: str, number: int) -> None:
        assert (device, number) == ("cuda", 0)
        self.outputs[name] = None

    def get_outputs(self) -> list[Value | None]:
        return list(self.outputs.values())

    def synchronize_outputs(self) -> None:
        self.waited += 1


class Session:
    """Takes what it is asked for, unless `providers` or `takes` say otherwise."""

    providers: list[str] | None = None
    takes: dict[str, str] = {}  # noqa: RUF012
    placement: dict[str, int] = {TENSORRT: 1, CUDA: 40, CPU: 2}  # noqa: RUF012
    opened: list["Session"] = []  # noqa: RUF012

    def __init__(self, path: str | bytes, options: Any, *, providers: list[Any], **rest: Any) -> None:
        assert rest.pop("enable_fallback") == 0
        rest.pop("disabled_optimizers", None)
        assert not rest
        self.path, self.options, self.asked = path, options, dict(providers)
        self.bindings: list[Binding] = []
        self.captured: dict[str, tuple[dict[str, Value], dict[str, Value]]] = {}
        self.computed: list[list[list[int]]] = []
        self.replays = 0
        self._busy = threading.Lock()
        self.opened.append(self)

    def get_providers(self) -> list[str]:
        return [*(self.asked if self.providers is None else self.providers), CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: {"device_id": "0", **asked, **self.takes} for name, asked in self.asked.items()} | {CPU: {}}

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

    @property
    def _has_graph(self) -> bool:
        return bool(self.asked[CUDA].get("enable_cuda_graph") == "1")

    def run(self, names: list[str], batch: dict[str, Any]) -> list[Any]:
        assert not self._has_graph, "captures buffers that are gone at the replay"
        return [self._compute(batch["input_ids"])]

    def io_binding(self) -> Binding:
        self.bindings.append(Binding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: Binding, options: Any = None) -> None:
        assert self._busy.acquire(blocking=False), "two callers at once"
        try:
            number = options.get_run_config_entry("gpu_graph_id") if options else "0"
            inputs: dict[str, Value] = binding.inputs
            outputs: dict[str, Any] = binding.outputs
            if self._has_graph and number != "-1":
                self.replays += number in self.captured
                inputs, outputs = self.captured.setdefault(number, (dict(inputs), dict(outputs)))
                assert None not in outputs.values(), "a graph needs fixed outputs"
            result = self._compute(inputs["input_ids"].array)
            time.sleep(0.001)
            if outputs["logits"] is None:
                outputs["logits"] = Value(result)
            else:
                outputs["logits"].update_inplace(result)
        finally:
            self._busy.release()

    def _compute(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        self.computed.append(ids.tolist())
        return np.stack([ids.sum(1), ids.max(1)], axis=1).astype(np.float32)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    """An onnxruntime that has CUDA and TensorRT; returns the class of its sessions."""

    class Fresh(Session):
        opened: list[Session] = []  # noqa: RUF012

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fresh)
    monkeypatch.setattr(onnxruntime, "OrtValue", Value)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(ort_gpu, "table_rows", lambda graph: {"input_ids": TABLE_ROWS})
    return Fresh
