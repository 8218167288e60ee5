"""OpenVINO on the CPU: the same ONNX files that ONNX Runtime reads."""

import logging
import os
import queue
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Availability, Batch, Executed, Lack, Outputs, RuntimeInfo, check_batch, check_indices
from runtimes.options import OPENVINO, OpenVinoOptions, describe_options

NAME, DEVICE = "openvino-cpu", "CPU"
NO_BF16 = "OpenVINO does not compute in bf16 on this CPU"
F32, BF16 = openvino.Type.f32, openvino.Type.bf16
DATA, CONVERT = ("Const", "Input", "Output"), ("Convert", "Reorder")
MODES = {"latency": hint.PerformanceMode.LATENCY, "throughput": hint.PerformanceMode.THROUGHPUT}


def probe() -> Availability:
    """Whether OpenVINO finds its CPU plugin."""
    core = openvino.Core()
    version = _version()
    if DEVICE not in core.available_devices:
        return Availability(
            runtime=NAME,
            available=False,
            engine_version=version,
            reason=f"OpenVINO {version} finds no CPU plugin",
            remedy="pip install --force-reinstall 'steelyard[openvino]'",
        )
    lacks = [] if _has_bf16(core) else [Lack(word="bf16", reason=NO_BF16, remedy="measure its fp32 instead")]
    if find_spec("nncf") is None:
        lacks.append(Lack(word="nncf", reason="nncf is not installed", remedy="pip install 'steelyard[nncf]'"))
    return Availability(runtime=NAME, available=True, engine_version=version, device="cpu", lacks=tuple(lacks))


class EngineRuntime:
    """An ONNX graph compiled by OpenVINO, with `threads` threads in all its streams; a `Runtime`.

    `bf16` computes an fp32 graph in bf16, int8 and int4 graphs compute in fp32 where they are not quantised unless
    `options.bf16` says otherwise. OpenVINO would choose bf16 by itself on CPUs that have it: it is always told. With
    `options.nncf`, an fp32 graph becomes int8 on entry, its ranges those of the `calibration` batches.
    """

    def __init__(
        self,
        model: Path,
        precision: Precision,
        threads: int,
        options: OpenVinoOptions = OPENVINO,
        calibration: Sequence[Batch] = (),
    ) -> None:
        if options.nncf and precision is not Precision.INT8_STATIC:
            raise UserError(f"+nncf makes int8-static, and {precision} was asked for", "leave +nncf out")
        self._model, self._precision, self._threads, self._options = model, precision, threads, options
        self._calibration = calibration
        self._type = BF16 if options.bf16 or precision is Precision.BF16 else F32
        self._compiled: Any = None
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

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
            engine_version=_version(),
            device=",".join(read(properties.execution_devices())).lower(),
            dtype=self._precision.value,
            threads=int(read(properties.inference_num_threads())),
            input_names=self._input_names,
            options={
                **describe_options(self._options),
                "inference_precision": read(hint.inference_precision()).get_type_name(),
                "streams": str(read(properties.num_streams())),
            },
        )

    def __enter__(self) -> Self:
        """Compile the graph. Raises `UserError` when it does not load, or threads or number type did not take."""
        self._core = openvino.Core()
        if self._type is BF16 and not _has_bf16(self._core):
            raise UserError(NO_BF16, "measure its fp32 instead")
        try:
            self._graph = self._core.read_model(self._model)
            if self._options.nncf:
                self._graph = _quantised(self._graph, self._calibration)
            compiled = self._compile()
        except UserError:
            raise
        except Exception as error:  # openvino raises RuntimeError and its own types, all of them about this file
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot run {self._model}: {reason}", "see: steelyard doctor") from error
        self._check("number type", self._type, compiled.get_property(hint.inference_precision()))
        self._check("threads", self._threads, compiled.get_property(properties.inference_num_threads()))
        self._places = _places(self._graph)
        self._output_names = [item.get_any_name() for item in compiled.outputs]
        self._input_names = tuple(item.get_any_name() for item in compiled.inputs)
        self._idle = queue.SimpleQueue()
        self._compiled = compiled
        return self

    def _compile(self) -> Any:
        asked = {
            hint.performance_mode(): MODES[self._options.hint],
            hint.inference_precision(): self._type,
            properties.inference_num_threads(): self._threads,
        }
        return self._core.compile_model(self._graph, DEVICE, asked)

    @staticmethod
    def _check(what: str, asked: object, got: object) -> None:
        if asked != got:
            raise UserError(f"asked OpenVINO for {what} {asked}, got {got}", "see: steelyard doctor")

    def run(self, batch: Batch) -> Outputs:
        """Host to host. Inputs are read where they lie; OpenVINO copies the outputs out of the request, whose buffers
        the next run overwrites. A request serves one caller at a time: each takes an idle one, or makes another."""
        compiled, idle = self.compiled, self._idle
        check_batch(batch, self._input_names)
        check_indices(batch, self._places, "OpenVINO")
        try:
            try:
                request = idle.get_nowait()
            except queue.Empty:
                request = compiled.create_infer_request()
            inputs = {name: np.ascontiguousarray(array) for name, array in batch.items()}
            outputs = request.infer(inputs, share_inputs=True, share_outputs=False).values()
        except Exception as error:  # openvino raises RuntimeError and its own types, all of them about these inputs
            self._idle = queue.SimpleQueue()
            self._compiled = self._compile()  # a batch that failed leaves shapes behind, and the next would fail too
            shape, reason = next(iter(batch.values())).shape, str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot run a batch of shape {shape}: {reason}") from error
        idle.put(request)
        return {name: np.asarray(array, np.float32) for name, array in zip(self._output_names, outputs, strict=True)}

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        return None

    def executed(self, batch: Batch) -> Executed | None:
        """From the graph that OpenVINO made for this batch: each node that computes, as its type, its kernel and the
        number type of the kernel."""
        self.run(batch)
        info = [node.get_rt_info() for node in self.compiled.get_runtime_model().get_ops()]
        nodes = [(str(item["layerType"].astype(str)), str(item["primitiveType"].astype(str))) for item in info]
        ran = [(layer, kernel) for layer, kernel in nodes if layer not in DATA and not kernel.startswith("unknown")]
        return Executed.of((f"{layer} {kernel}" for layer, kernel in ran), sum(layer in CONVERT for layer, _ in ran))

    def peak_device_bytes(self) -> int | None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compiled = self._graph = self._core = None
        self._idle = queue.SimpleQueue()


def _quantised(graph: Any, calibration: Sequence[Batch]) -> Any:
    """The graph in int8 as NNCF makes it for OpenVINO: layers and the products of attention, for speed."""
    os.environ.setdefault("NNCF_CI", "1")  # or it would report to its makers over the network
    import nncf

    nncf.set_log_level(logging.ERROR)
    names = [item.get_any_name() for item in graph.inputs]
    samples = [{name: batch[name] for name in names} for batch in calibration]
    try:
        return nncf.quantize(
            graph,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )
    except Exception as error:  # nncf and openvino raise many types, about this graph or the batches
        reason = " ".join(str(error).split())
        raise UserError(f"NNCF cannot quantise this graph: {reason}", "leave +nncf out") from error


def _version() -> str:
    return str(openvino.get_version()).partition("-")[0]


def _has_bf16(core: Any) -> bool:
    return "BF16" in core.get_property(DEVICE, properties.device.capabilities())


def _places(model: Any) -> dict[str, int]:
    """For each input that looks up rows of a table: how many rows the table has.

    OpenVINO does not check an index (it reads what lies there), so `run` does.
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
