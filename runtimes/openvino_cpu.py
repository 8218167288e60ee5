"""OpenVINO on the CPU: the same ONNX files that ONNX Runtime reads."""

import logging
import os
import queue
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import openvino

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Availability, Batch, Executed, Lack, Outputs, check_batch, check_indices
from runtimes.openvino_model import DEVICE, NAME, NO_BF16, OpenVinoModel, engine_version, has_bf16, table_rows
from runtimes.options import OPENVINO, OpenVinoOptions


def probe() -> Availability:
    """Whether OpenVINO finds its CPU plugin."""
    core = openvino.Core()
    version = engine_version()
    if DEVICE not in core.available_devices:
        return Availability(
            runtime=NAME,
            available=False,
            engine_version=version,
            reason=f"OpenVINO {version} finds no CPU plugin",
            remedy="pip install --force-reinstall 'steelyard[openvino]'",
        )
    lacks = [] if has_bf16(core) else [Lack(word="bf16", reason=NO_BF16, remedy="measure its fp32 instead")]
    if find_spec("nncf") is None:
        lacks.append(Lack(word="nncf", reason="nncf is not installed", remedy="pip install 'steelyard[nncf]'"))
    return Availability(runtime=NAME, available=True, engine_version=version, device="cpu", lacks=tuple(lacks))


class EngineRuntime(OpenVinoModel):
    """An ONNX graph compiled by OpenVINO; a `Runtime`.

    `bf16` computes an fp32 graph in bf16, int8 and int4 graphs compute in fp32 where they are not quantised unless
    `options.bf16` says otherwise. With `options.nncf`, an fp32 graph becomes int8 on entry, its ranges those of the
    `calibration` batches.
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
        bf16 = options.bf16 or precision is Precision.BF16
        super().__init__(model, precision, threads, options, options.hint, bf16=bf16)
        self._quantises, self._calibration = options.nncf, calibration
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        """Compile the graph. Raises `UserError` when it does not load, or threads or number type did not take."""
        super().__enter__()
        self._places = table_rows(self._graph)
        self._output_names = [item.get_any_name() for item in self.compiled.outputs]
        self._input_names = tuple(item.get_any_name() for item in self.compiled.inputs)
        return self

    def _prepared(self, graph: Any) -> Any:
        return _quantised(graph, self._calibration) if self._quantises else graph

    def compile(self) -> None:
        super().compile()
        self._idle = queue.SimpleQueue()

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
            self.compile()  # a batch that failed leaves shapes behind, and the next would fail too
            shape, reason = next(iter(batch.values())).shape, str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot run a batch of shape {shape}: {reason}") from error
        idle.put(request)
        return {name: np.asarray(array, np.float32) for name, array in zip(self._output_names, outputs, strict=True)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._idle = queue.SimpleQueue()
        super().__exit__(kind, error, trace)

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        return None

    def executed(self, batch: Batch) -> Executed | None:
        """Each node that computes."""
        self.run(batch)
        return self.kernels()


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
