"""A plain PyTorch module from the user's own file as a subject."""

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifact.records import sha256_file
from artifact.task import Task
from errors import UserError
from exporter.from_checkpoint import check_weights
from exporter.request import ModuleSource
from exporter.subject import BATCH, Axis, Filling, Input, Subject, named_outputs

DTYPES = {torch.float32: "float32", torch.int64: "int64"}


def module_subject(source: ModuleSource) -> Subject:
    """Build the module and describe it.

    Raises `UserError` for a file without that function, a function that returns something else, samples with a single
    row, an axis that is named but of size 1, or weights that do not fit or are not finite.
    """
    built = _call(source)
    if not isinstance(built, tuple) or len(built) not in (2, 3) or not isinstance(built[0], torch.nn.Module):
        raise UserError(
            f"{source.file}: {source.function}() returns {_kind(built)}",
            "return a torch.nn.Module and its sample inputs: (module, sample) or (module, sample, axes)",
        )
    module = built[0].eval().float()
    if source.weights:
        _load_weights(module, source.weights)
    check_weights(module)
    sample = _named_sample(source, module, built[1])
    axes = _axes(source, sample, built[2] if len(built) == 3 else {})
    inputs = tuple(
        Input(
            name=name,
            dtype=DTYPES[tensor.dtype],
            shape=tuple(axes[name].get(place, size) for place, size in enumerate(tensor.shape)),
            filling=Filling.DRAWN,
            choices=np.asarray(tensor.numpy()).ravel(),
        )
        for name, tensor in sample.items()
    )
    outputs = _outputs(source, module, sample)
    return Subject(type(module).__name__, Task.MODULE, module, inputs, outputs, is_transformers=False)


def _call(source: ModuleSource) -> Any:
    spec = importlib.util.spec_from_file_location(f"steelyard_module_{source.file.stem}", source.file)
    if spec is None or spec.loader is None:
        raise UserError(f"{source.file} is not a Python file", "give a .py file")
    namespace = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(namespace)
    except Exception as error:  # whatever the user's file raises
        raise UserError(
            f"{source.file} cannot be loaded: {type(error).__name__}: {error}", "run it by itself"
        ) from error
    function = getattr(namespace, source.function, None)
    if not callable(function):
        raise UserError(f"{source.file} has no function '{source.function}'", "name one that builds the module")
    try:
        return function()
    except Exception as error:  # whatever the user's function raises
        raise UserError(f"{source.file}: {source.function}() fails: {type(error).__name__}: {error}") from error


def _kind(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(module, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} does not fit the module: {str(error).splitlines()[0]}") from error


def _named_sample(source: ModuleSource, module: torch.nn.Module, sample: Any) -> dict[str, torch.Tensor]:
    """The sample by the names of `forward`'s parameters."""
    import inspect

    parameters = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if isinstance(sample, torch.Tensor):
        sample = (sample,)
    if isinstance(sample, Sequence):
        if len(sample) > len(parameters):
            raise UserError(
                f"{source.file}: the sample has {len(sample)} tensors, and forward takes {len(parameters)}",
                "give a tuple with one tensor for each parameter of forward, or a dict",
            )
        sample = dict(zip(parameters, sample, strict=False))
    if not isinstance(sample, Mapping) or not sample:
        raise UserError(
            f"{source.file}: the sample is a {type(sample).__name__}",
            "give a tensor, a tuple of tensors or a dict of tensors by the names of forward's parameters",
        )
    for name, tensor in sample.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in DTYPES:
            raise UserError(f"{source.file}: the sample of '{name}' is no float32 or int64 tensor")
        if tensor.ndim == 0 or tensor.shape[0] < 2:
            raise UserError(
                f"{source.file}: the sample of '{name}' has the shape {tuple(tensor.shape)}",
                "give at least two rows: an axis of one would be baked into the graph",
            )
    rows = sorted({tensor.shape[0] for tensor in sample.values()})
    if len(rows) > 1:
        raise UserError(
            f"{source.file}: the sample has inputs of {rows[0]} and {rows[-1]} rows", "give all inputs the same rows"
        )
    return {str(name): tensor.detach() for name, tensor in sample.items()}


def _outputs(source: ModuleSource, module: torch.nn.Module, sample: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Names of what the module gives for its sample; each must have a row for each of the sample's."""
    try:
        with torch.inference_mode():
            found = module(**sample)
    except Exception as error:  # whatever the user's module raises
        raise UserError(
            f"{source.file}: the module does not take its own sample: {type(error).__name__}: {error}"
        ) from error
    rows = next(iter(sample.values())).shape[0]
    for name, tensor in named_outputs(found).items():
        if tensor.ndim == 0 or tensor.shape[0] != rows:
            raise UserError(
                f"{source.file}: the output '{name}' has the shape {tuple(tensor.shape)} for {rows} rows",
                "return one row for each of the sample's; leave losses and sums out",
            )
    return tuple(named_outputs(found))


def _axes(
    source: ModuleSource, sample: Mapping[str, torch.Tensor], named: Mapping[str, Mapping[int, str]]
) -> dict[str, dict[int, Axis]]:
    """The batch, and the axes that the user named."""
    found: dict[str, dict[int, Axis]] = {name: {0: BATCH} for name in sample}
    for name, places in named.items():
        if name not in sample:
            raise UserError(f"{source.file}: axes are named of '{name}', which is no input")
        for place, axis in places.items():
            size = sample[name].shape[place] if 0 < place < sample[name].ndim else 0
            if size < 2:
                raise UserError(
                    f"{source.file}: axis {place} of '{name}' has the size {size}", "name axes of at least 2"
                )
            found[name][place] = Axis(str(axis), (1, size, size + 3, 2 * size))
    return found


def module_sha256(source: ModuleSource, subject: Subject) -> str:
    """Hash of the file, of every weight that was built, and of the sample inputs."""
    digest = hashlib.sha256(f"{sha256_file(source.file)} {source.function}".encode())
    for name, tensor in sorted(subject.module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    for item in subject.inputs:
        digest.update(f"{item.name} {item.shape}".encode() + np.asarray(item.choices).tobytes())
    return digest.hexdigest()
