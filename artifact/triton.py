"""An artifact as a model repository of a Triton server."""

from pathlib import Path

from artifact.predict.manifest import Manifest
from artifact.records import write_bytes
from artifact.variant import TensorSpec, Variant
from errors import UserError

MOST_BATCH = 32
KINDS = {"int64": "TYPE_INT64", "float32": "TYPE_FP32", "int32": "TYPE_INT32", "float16": "TYPE_FP16"}


def as_triton(folder: Path, name: str, manifest: Manifest, variant: Variant) -> None:
    """Turn a finished artifact into a model repository of Triton's ONNX Runtime backend.

    The graph and its weights move to `NAME/1/`, beside `NAME/config.pbtxt`; the tokenizer and everything else stays in
    `NAME/`, for the client that prepares items. Raises `UserError` for an input or output of a type that it lacks.
    """
    model = folder / name
    parts = [path for path in folder.iterdir() if path.name != "onnx"]
    (model / "1").mkdir(parents=True)
    for path in parts:
        path.rename(model / path.name)
    for path in (folder / "onnx").iterdir():
        is_graph = path.name == Path(manifest.model_file).name
        path.rename(model / "1" / ("model.onnx" if is_graph else path.name))
    (folder / "onnx").rmdir()
    write_bytes(model / "config.pbtxt", triton_config(name, variant, manifest.outputs).encode())


def triton_config(name: str, variant: Variant, outputs: tuple[str, ...]) -> str:
    """`config.pbtxt`: every axis but the batch, which Triton adds itself; requests are batched as they come."""
    given = [spec for spec in variant.outputs if spec.name in outputs]
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {MOST_BATCH}
{_tensors("input", variant.inputs)}
{_tensors("output", given)}
instance_group [ {{ count: 1, kind: KIND_CPU }} ]
dynamic_batching {{ }}
"""


def _tensors(what: str, specs: "tuple[TensorSpec, ...] | list[TensorSpec]") -> str:
    lines = []
    for spec in specs:
        if spec.dtype not in KINDS:
            raise UserError(f"Triton's {what} {spec.name} cannot be of type {spec.dtype}", "pack another precision")
        dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in spec.shape[1:])
        lines.append(f'  {{ name: "{spec.name}", data_type: {KINDS[spec.dtype]}, dims: [ {dims} ] }}')
    return f"{what} [\n" + ",\n".join(lines) + "\n]"
