"""Each engine as an engineer would call it in a loop of their own.

`BY_HAND` opens the model with nothing of `runtimes`; `BARE` calls the very engine that a runtime has opened.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Batch = Mapping[str, NDArray[np.int64]]
Call = Callable[[Batch], object]
Opens = Callable[[Path, str, frozenset[str], int, Sequence[Batch]], Call]
"""Model, precision, options, threads and calibration batches to what computes a batch."""


def torch_by_hand(
    checkpoint: Path, precision: str, options: frozenset[str], threads: int, calibration: Sequence[Batch]
) -> Call:
    """transformers' model, cast or under autocast or quantised, compiled if asked for; numpy in, numpy out."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    casts = "autocast" in options
    if precision == "bf16" and not casts:
        model = model.to(torch.bfloat16)
    call: Any = model
    if precision.startswith("int8"):
        call = torchao_by_hand(model, calibration, static=precision == "int8-static", compiled="compile" in options)
    elif "compile" in options:
        call = torch.compile(model, fullgraph=True, dynamic=True, options={"freezing": True})

    def run(batch: Batch) -> object:
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=casts):
            return call(**tensors).logits.float().numpy()

    return run


def torchao_by_hand(model: Any, calibration: Sequence[Batch], *, static: bool, compiled: bool) -> Call:
    """PT2E quantisation as torchao's tutorial for x86 has it: exported, observed, converted, and compiled by
    AOTInductor for every shape, as PyTorch's documentation of it has it."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    tensors = [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in calibration]
    axes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=not static))
    with torch.no_grad():
        exported = torch.export.export(
            model, (), tensors[0], dynamic_shapes=dict.fromkeys(tensors[0], axes), strict=False
        )
        observed = prepare_pt2e(exported.module(), quantizer)
        for batch in tensors:
            observed(**batch)
        converted: Any = convert_pt2e(observed)
        if not compiled:
            return cast(Call, converted)
        program = torch.export.export(
            converted, (), tensors[0], dynamic_shapes=dict.fromkeys(tensors[0], axes), strict=False
        )
        package = torch._inductor.aoti_compile_and_package(program, inductor_configs={"freezing": True})
    return cast(Call, torch._inductor.aoti_load_package(package))


def onnxruntime_by_hand(
    graph: Path, precision: str, options: frozenset[str], threads: int, calibration: Sequence[Batch]
) -> Call:
    """An InferenceSession; the fusion that slows MiniLM down is off unless asked for, as Steelyard has it."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    left_out = [] if "disabled-optimizers=none" in options else ["SkipLayerNormFusion"]
    session = onnxruntime.InferenceSession(
        str(graph), settings, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
    )
    return lambda batch: session.run(None, batch)


def openvino_by_hand(
    graph: Path, precision: str, options: frozenset[str], threads: int, calibration: Sequence[Batch]
) -> Call:
    """A compiled model with the number type named, as OpenVINO would choose bf16 by itself; outputs copied."""
    import openvino

    half = precision == "bf16" or "bf16" in options
    asked = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    model = openvino.Core().read_model(graph)
    if "nncf" in options:
        import nncf

        model = nncf.quantize(
            model,
            nncf.Dataset([dict(batch) for batch in calibration]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
        )
    request = openvino.Core().compile_model(model, "CPU", asked).create_infer_request()
    return lambda batch: np.array(next(iter(request.infer(batch, share_inputs=True).values())))


BY_HAND: Mapping[str, Opens] = {
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
