"""What the OpenVINO runtimes share: an ONNX graph compiled to exactly what was asked for."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import openvino
from openvino import properties
from openvino.properties import hint

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Executed, OnCpu, RuntimeInfo
from runtimes.openvino_lookup import block_lookups
from runtimes.options import Hint, Options, describe_options

NAME, DEVICE = "openvino-cpu", "CPU"
NO_BF16 = "OpenVINO does not compute in bf16 on this CPU"
F32, BF16 = openvino.Type.f32, openvino.Type.bf16
DATA, CONVERT = ("Const", "Input", "Output"), ("Convert", "Reorder")
MODES: Mapping[Hint, hint.PerformanceMode] = {
    "latency": hint.PerformanceMode.LATENCY,
    "throughput": hint.PerformanceMode.THROUGHPUT,
}


CHECKED: Mapping[str, str] = {
    hint.inference_precision(): "number type",
    hint.kv_cache_precision(): "cache in",
    properties.inference_num_threads(): "threads",
}
"""What must be as it was asked for, and its word in a sentence."""


class OpenVinoModel(OnCpu):
    """A graph on OpenVINO's CPU plugin, with `threads` threads in all its streams.

    What is not quantised computes in bf16 where `bf16` says so and in fp32 elsewhere. OpenVINO would choose bf16 by
    itself on CPUs that have it: it is always told.
    """

    def __init__(
        self, model: Path, precision: Precision, threads: int, options: Options, mode: Hint, *, bf16: bool
    ) -> None:
        self._model, self._precision, self._threads, self._options = model, precision, threads, options
        self._asked: dict[str, Any] = {
            hint.performance_mode(): MODES[mode],
            hint.inference_precision(): BF16 if bf16 else F32,
            properties.inference_num_threads(): threads,
        }
        self._core: Any = None
        self._graph: Any = None
        self._compiled: Any = None

    @property
    def compiled(self) -> Any:
        """The open `openvino.CompiledModel`."""
        if self._compiled is None:
            raise RuntimeError("the runtime is not open; use it in a with block")
        return self._compiled

    @property
    def info(self) -> RuntimeInfo:
        read = self.compiled.get_property
        return RuntimeInfo(
            runtime=NAME,
            engine="openvino",
            engine_version=engine_version(),
            device=",".join(read(properties.execution_devices())).lower(),
            dtype=self._precision.value,
            threads=int(read(properties.inference_num_threads())),
            input_names=tuple(item.get_any_name() for item in self.compiled.inputs),
            options={**describe_options(self._options), **self._taken(read)},
        )

    def _taken(self, read: Any) -> dict[str, str]:
        """What OpenVINO says of itself, for the record; `read` gives one of its properties."""
        return {
            "inference_precision": read(hint.inference_precision()).get_type_name(),
            "streams": str(read(properties.num_streams())),
        }

    def __enter__(self) -> Self:
        """Compile the graph. Raises `UserError` when it does not load, or a setting did not take."""
        self._core = openvino.Core()
        if self._asked[hint.inference_precision()] is BF16 and not has_bf16(self._core):
            raise UserError(NO_BF16, "measure its fp32 instead")
        self._core.add_extension(block_lookups())
        try:
            self._graph = self._prepared(self._core.read_model(self._model))
            self.compile()
        except UserError:
            raise
        except Exception as error:  # openvino raises RuntimeError and its own types, all of them about this file
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot run {self._model}: {reason}", "see: steelyard doctor") from error
        for name, word in CHECKED.items():
            asked = self._asked.get(name)
            if asked is not None and asked != (got := self.compiled.get_property(name)):
                self._compiled = None
                raise UserError(f"asked OpenVINO for {word} {asked}, got {got}", "see: steelyard doctor")
        return self

    def _prepared(self, graph: Any) -> Any:
        """The graph as it is compiled."""
        return graph

    def compile(self) -> None:
        """Make what runs of the graph, anew where it was made before."""
        self._compiled = self._core.compile_model(self._graph, DEVICE, self._asked)

    def kernels(self) -> Executed:
        """From the graph that OpenVINO made for the last batch: each node that computes, as its type, its kernel and
        the number type of the kernel."""
        info = [node.get_rt_info() for node in self.compiled.get_runtime_model().get_ops()]
        nodes = [(str(item["layerType"].astype(str)), str(item["primitiveType"].astype(str))) for item in info]
        ran = [(layer, kernel) for layer, kernel in nodes if layer not in DATA and not kernel.startswith("unknown")]
        return Executed.of((f"{layer} {kernel}" for layer, kernel in ran), sum(layer in CONVERT for layer, _ in ran))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compiled = self._graph = self._core = None


def engine_version() -> str:
    """OpenVINO's release, such as 2026.4.1."""
    return str(openvino.get_version()).partition("-")[0]


def has_bf16(core: Any) -> bool:
    """Whether this CPU computes in bf16 by OpenVINO."""
    return "BF16" in core.get_property(DEVICE, properties.device.capabilities())


def table_rows(model: Any) -> dict[str, int]:
    """For each input that looks up rows of a table: how many rows the table has.

    OpenVINO does not check an index (it reads what lies there), so runtimes do.
    """
    rows: dict[str, int] = {}
    for node in model.get_ops():
        if node.get_type_name() != "Gather" or not node.input(0).get_partial_shape()[0].is_static:
            continue
        index = node.input_value(1).get_node()
        while index.get_type_name() == "Convert":
            index = index.input_value(0).get_node()
        if index.get_type_name() == "Parameter":
            name = index.output(0).get_any_name()
            rows[name] = min(node.input(0).get_partial_shape()[0].get_length(), rows.get(name, sys.maxsize))
    return rows
