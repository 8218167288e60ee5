"""A checkpoint as a subject: which inputs its class takes, and which of their axes may vary."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from artifact.pooling import POOLED, Pooling
from artifact.task import ANSWERS
from artifact.tokenizer import read_config
from errors import UserError
from exporter.subject import BATCH, Axis, Filling, Input, Subject
from models.checkpoint import Checkpoint, load_model, load_tokenizer, model_input_names, text_limits
from models.pooling import PooledModule

LONGEST_TRIAL = 2048
"""Longer sequences than this are not tried: attention's memory grows with the square."""

IMAGE_AXES = ("height", "width")
SEQUENCE = "sequence"

SECOND = 16_000
"""Samples in one second of speech, as every speech model of transformers takes it."""

REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)
"""What models raise for inputs of a size or a content that they do not take."""


def checkpoint_subject(checkpoint: Checkpoint, pooling: Pooling | None = None) -> Subject:
    """The subject of a checkpoint.

    Raises `UserError` for weights that are not finite, a tokenizer with ids that the model has no row for, or a model
    whose inputs are none of text, image and audio.
    """
    model = load_model(checkpoint.directory, task=checkpoint.task, allow_pickle=checkpoint.pickled)
    check_weights(model)
    main = str(getattr(model, "main_input_name", "input_ids"))
    readers = {"input_ids": _text, "pixel_values": _image, "input_values": _audio, "input_features": _audio}
    if main not in readers:
        raise UserError(
            f"{type(model).__name__} takes '{main}', and only text, images and audio can be exported so far"
        )
    subject = Subject(
        name=type(model).__name__,
        task=checkpoint.task,
        module=model,
        inputs=readers[main](checkpoint, model),
        outputs=ANSWERS[checkpoint.task].outputs,
    )
    if pooling is not None:
        subject = replace(subject, module=PooledModule(model, pooling), outputs=(POOLED,))
    _check_answers(subject)
    for axis in subject.axes[1:]:
        refusal = _refusal(subject, axis)
        if refusal and axis.name == SEQUENCE:
            raise UserError(
                f"{subject.name} does not take texts of every length up to {axis.trials[-1]} tokens: {refusal}",
                "say in tokenizer_config.json how many it takes (model_max_length)",
            )
        if refusal:
            subject = fix_axes(subject, (axis,))
    return subject


def check_weights(module: torch.nn.Module) -> None:
    """Raise `UserError` naming the first parameter or buffer with a value that is NaN or infinite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise UserError(
                f"the weight '{name}' has {count} values that are NaN or infinite",
                "the training diverged; take an earlier checkpoint",
            )


def _text(checkpoint: Checkpoint, model: Any) -> tuple[Input, ...]:
    names = model_input_names(checkpoint.directory)
    accepted = inspect.signature(model.forward).parameters
    names = tuple(name for name in names if name in accepted)
    if not {"input_ids", "attention_mask"} <= set(names):
        raise UserError(f"{type(model).__name__} takes {', '.join(names)}, and not both input_ids and attention_mask")
    rows = int(model.get_input_embeddings().weight.shape[0])
    _check_vocabulary(checkpoint, rows)
    most = text_limits(checkpoint).max_length_tokens
    longest = min(LONGEST_TRIAL, most)
    sequence = Axis(SEQUENCE, (1, min(7, longest), min(5, longest), longest), most)
    fillings = {"input_ids": Filling.IDS, "attention_mask": Filling.MASK}
    return tuple(
        Input(
            name=name,
            dtype="int64",
            shape=(BATCH, sequence),
            filling=fillings.get(name, Filling.ZEROS),
            choices=np.arange(1, rows) if name == "input_ids" else None,
        )
        for name in names
    )


def _check_vocabulary(checkpoint: Checkpoint, rows: int) -> None:
    highest = max(load_tokenizer(checkpoint.directory).get_vocab().values())
    if highest >= rows:
        raise UserError(
            f"{checkpoint.directory}: the tokenizer has ids up to {highest}, the model has {rows} rows of embeddings",
            "resize the model with model.resize_token_embeddings(len(tokenizer)), fine-tune and save both again",
        )


def _image(checkpoint: Checkpoint, model: Any) -> tuple[Input, ...]:
    height, width = _image_size(checkpoint, model)
    channels = int(getattr(model.config, "num_channels", 3))
    axes = tuple(
        Axis(name, (size, size + 32, size + 64, 2 * size))
        for name, size in zip(IMAGE_AXES, (height, width), strict=True)
    )
    return (Input("pixel_values", "float32", (BATCH, channels, *axes), Filling.NORMAL),)


def _image_size(checkpoint: Checkpoint, model: Any) -> tuple[int, int]:
    """Height and width from the image processor or the model's configuration, in that order; 224 if neither says."""
    size: Any = None
    if (checkpoint.directory / "preprocessor_config.json").is_file():
        processor = read_config(checkpoint.directory, "preprocessor_config.json")
        size = processor.get("crop_size") or processor.get("size")
    if isinstance(size, dict):
        size = [size["height"], size["width"]] if "height" in size else size.get("shortest_edge")
    size = size or getattr(model.config, "image_size", None) or 224
    return (int(size), int(size)) if isinstance(size, int | float) else (int(size[0]), int(size[1]))


def _audio(checkpoint: Checkpoint, model: Any) -> tuple[Input, ...]:
    name, config = str(model.main_input_name), model.config
    bins = getattr(config, "num_mel_bins", None) or getattr(config, "feature_projection_input_dim", None)
    if bins is None:
        second = min(SECOND, int(getattr(config, "max_length", None) or SECOND))
        frames = Axis("frames", (second, second + second // 2, second + second // 4, 3 * second))
        return (Input(name, "float32", (BATCH, frames), Filling.NORMAL),)
    length = int(getattr(config, "max_length", None) or 100)
    frames = Axis("frames", (length, length + 16, length + 32, 2 * length))
    return (Input(name, "float32", (BATCH, frames, int(bins)), Filling.NORMAL),)


def _check_answers(subject: Subject) -> None:
    sizes = {axis.name: axis.trials[0] for axis in subject.axes}
    try:
        subject.answer(subject.random(sizes, seed=0))
    except REFUSALS as error:
        raise UserError(
            f"{subject.name} does not take random inputs: {error}", "docs/architectures.md lists what can be exported"
        ) from error


def _refusal(subject: Subject, axis: Axis) -> str:
    """What the module itself says to other sizes of an axis; empty when it takes them."""
    sizes = {other.name: other.trials[0] for other in subject.axes}
    try:
        for trial in axis.trials[1:]:
            subject.answer(subject.random(sizes | {axis.name: trial}, seed=0))
    except REFUSALS as error:
        return str(error) or type(error).__name__
    return ""


def fix_axes(subject: Subject, axes: Sequence[Axis]) -> Subject:
    """The same subject with these axes at their first size, and fixed."""
    inputs = tuple(
        replace(
            item,
            shape=tuple(size.trials[0] if isinstance(size, Axis) and size in axes else size for size in item.shape),
        )
        for item in subject.inputs
    )
    return replace(subject, inputs=inputs)
