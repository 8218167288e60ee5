"""Each engine as an engineer would call it in a loop of their own.

`BY_HAND` opens the model with nothing of `runtimes`; `BARE` calls the very engine that a runtime has opened.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batch = Mapping[str, NDArray[np.int64]]
Call = Callable[[Batch], object]


def torch_by_hand(checkpoint: Path, precision: str, options: frozenset[str], threads: int) -> Call:
    """transformers' model, cast or under autocast, compiled if asked for; numpy in, numpy out."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    casts = "autocast" in options
    if precision == "bf16" and not casts:
        model = model.to(torch.bfloat16)
    call: Any = model
    if "compile" in options:
        call = torch.compile(model, fullgraph=True, dynamic=True, options={"freezing": True})

    def run(batch: Batch) -> object:
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=casts):
            return call(**tensors).logits.float().numpy()

    return run


def onnxruntime_by_hand(graph: Path, precision: str, options: frozenset[str], threads: int) -> Call:
    """An InferenceSession; the fusion that slows MiniLM down is off unless asked for, as Steelyard has it."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    left_out = [] if "disabled-optimizers=none" in options else ["SkipLayerNormFusion"]
    session = onnxruntime.InferenceSession(
        str(graph), settings, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
    )
    return lambda batch: session.run(None, batch)


def openvino_by_hand(graph: Path, precision: str, options: frozenset[str], threads: int) -> Call:
    """A compiled model with the number type named, as OpenVINO would choose bf16 by itself; outputs copied."""
    import openvino

    half = precision == "bf16" or "bf16" in options
    asked = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(graph, "CPU", asked).create_infer_request()
    return lambda batch: np.array(next(iter(request.infer(batch, share_inputs=True).values())))


BY_HAND: Mapping[str, Callable[[Path, str, frozenset[str], int], Call]] = {
    "torch-cpu": torch_by_hand,
    "ort-cpu": onnxruntime_by_hand,
    "openvino-cpu": openvino_by_hand,
}


def bare_torch(runtime: Any) -> Call:
    """The open module, eager or compiled."""
    import torch

    casts = runtime.info.options["autocast"] == "true"

    def run(batch: Batch) -> object:
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=casts):
            return runtime.call(**tensors).logits.float().numpy()

    return run


def bare_onnxruntime(runtime: Any) -> Call:
    """The open session."""
    return lambda batch: runtime.session.run(None, batch)


def bare_openvino(runtime: Any) -> Call:
    """One request of the open model, its outputs copied."""
    request = runtime.compiled.create_infer_request()
    return lambda batch: np.array(next(iter(request.infer(batch, share_inputs=True).values())))


BARE: Mapping[str, Callable[[Any], Call]] = {
    "torch-cpu": bare_torch,
    "ort-cpu": bare_onnxruntime,
    "openvino-cpu": bare_openvino,
}
