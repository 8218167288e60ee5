"""ONNX Runtime on an NVIDIA GPU."""

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime

from artifact.precision import Precision
from runtimes.base import Availability, Batch, Outputs
from runtimes.options import ORT_CUDA, OrtCudaOptions
from runtimes.ort_gpu import CUDA, DEVICE, HERE, OrtGpu, probe_gpu, to_device
from runtimes.ort_model import Target, about

NAME = "ort-cuda"
GRAPH_ID, NO_GRAPH = "gpu_graph_id", "-1"

_CAPTURING = threading.Lock()
"""Held by everything that sessions with a CUDA graph do on the device: while one captures, the driver lets no other
thread of the process allocate or copy, and what is captured may not be replayed by two threads at once."""


def probe() -> Availability:
    """Whether this build of ONNX Runtime has CUDA, and NVML (where it is installed) finds a GPU."""
    return probe_gpu(NAME, CUDA)


def _target(precision: Precision, options: OrtCudaOptions, *, graph: bool) -> Target:
    return Target(
        provider=CUDA,
        device=DEVICE,
        options={
            "use_tf32": "1" if precision is Precision.TF32 else "0",  # ONNX Runtime's default is TF32
            "enable_cuda_graph": "1" if graph else "0",
        },
        entries={} if options.cpu_fallback else {"session.disable_cpu_ep_fallback": "1"},
    )


class EngineRuntime(OrtGpu):
    """An ONNX graph on ONNX Runtime's CUDA provider; only `tf32` multiplies in TF32."""

    def __init__(self, model: Path, precision: Precision, threads: int, options: OrtCudaOptions = ORT_CUDA) -> None:
        target = _target(precision, options, graph=options.cuda_graph)
        super().__init__(NAME, target, model, precision, threads, options)
        self._options = options
        self._graphs = _Graphs()

    def __enter__(self) -> Self:
        probe().require()
        return super().__enter__()

    @property
    def _watched(self) -> Target:
        """Without a CUDA graph, whose replay would show no kernel."""
        return _target(self._precision, self._options, graph=False)

    def run(self, batch: Batch) -> Outputs:
        """Host to host. With a CUDA graph, inputs are copied into the buffers that the graph of their shape reads."""
        if not self._options.cuda_graph:
            return super().run(batch)
        session = self.session
        self._check(batch)
        with about(batch), _CAPTURING:
            graph = self._graphs.take(session, batch, self._output_names)
            graph.compute()
            answers = graph.answers()
            self._graphs.give_back(graph)
        return answers

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        """With a CUDA graph, the call owns one graph until it is forgotten, so that no `run` overwrites its inputs."""
        if not self._options.cuda_graph:
            return super().bind(batch)
        session = self.session
        self._check(batch)
        with about(batch), _CAPTURING:
            graph = self._graphs.take(session, batch, self._output_names)

        def compute() -> None:
            with about(batch), _CAPTURING:
                graph.compute()

        weakref.finalize(compute, self._graphs.give_back, graph).atexit = False
        return compute

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._graphs = _Graphs()
        super().__exit__(kind, error, trace)


class _Graph:
    """One captured graph with the buffers on the device that it reads and writes, for one shape.

    ONNX Runtime captures at the first run with a new number, and keeps a capture for each thread that computes.
    """

    def __init__(self, session: Any, number: int, inputs: Mapping[str, Any], output_names: list[str]) -> None:
        self.shape = tuple(next(iter(inputs.values())).shape())
        self._session, self._inputs = session, inputs
        self._outputs = dict(zip(output_names, self._allocated(output_names), strict=True))
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(GRAPH_ID, str(number))
        self._binding = self._bound()
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _bound(self) -> Any:
        binding = self._session.io_binding()
        for name, value in self._inputs.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _allocated(self, output_names: list[str]) -> list[Any]:
        """Outputs of the right shape and type, allocated by a run that captures nothing."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(GRAPH_ID, NO_GRAPH)
        binding = self._bound()
        for name in output_names:
            binding.bind_output(name, HERE, 0)
        self._session.run_with_iobinding(binding, options)
        allocated: list[Any] = binding.get_outputs()
        return allocated

    def fill(self, batch: Batch) -> None:
        """Copy a batch of this shape into the buffers; done when this returns."""
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(batch[name]))

    def compute(self) -> None:
        """Capture the first time, replay from then on; the device has finished when this returns."""
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()

    def answers(self) -> Outputs:
        """The outputs, copied to the host."""
        return {name: np.array(value.numpy(), dtype=np.float32) for name, value in self._outputs.items()}


class _Graphs:
    """The graphs of one session: those that are idle wait, by shape, to be used again."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[int, ...], list[_Graph]] = defaultdict(list)
        self._made = 0

    def take(self, session: Any, batch: Batch, output_names: list[str]) -> _Graph:
        """A graph of the batch's shape that holds the batch and that nobody else uses."""
        idle = self._idle[next(iter(batch.values())).shape]
        if idle:
            graph = idle.pop()
            graph.fill(batch)
            return graph
        self._made += 1
        graph = _Graph(session, self._made, to_device(batch), output_names)
        graph.compute()
        return graph

    def give_back(self, graph: _Graph) -> None:
        """Let another batch have it."""
        self._idle[graph.shape].append(graph)
