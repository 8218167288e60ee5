"""A folder written by `save_pretrained`: check it, describe it, load it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.identity import checkpoint_sha256
from artifact.labels import read_activation, read_labels
from artifact.task import Activation, Task
from artifact.tokenizer import TextLimits, read_config, read_limits
from errors import UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that has all it needs: weights, configuration and a fast tokenizer."""

    directory: Path
    task: Task
    labels: tuple[str, ...]
    activation: Activation
    limits: TextLimits
    sha256: str


def open_checkpoint(directory: Path) -> Checkpoint:
    """Check a local checkpoint and read what it is, without loading its weights.

    Raises `UserError` naming what is missing: the folder, `config.json`, safetensors weights, the tokenizer, or a task
    that this tool knows.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist or is not a folder", "give a folder written by save_pretrained")
    config = read_config(directory, "config.json")
    if not list(directory.glob("*.safetensors")):
        pickled = sorted(path.name for path in directory.glob("*.bin"))
        raise UserError(
            f"{directory} has no safetensors weights" + (f", only the pickle {pickled[0]}" if pickled else ""),
            "save it with model.save_pretrained(folder); pickles can run code and are not loaded",
        )
    return Checkpoint(
        directory=directory,
        limits=read_limits(directory),
        task=infer_task(directory, config),
        labels=read_labels(directory),
        activation=read_activation(directory),
        sha256=checkpoint_sha256(directory),
    )


def infer_task(directory: Path, config: dict[str, Any]) -> Task:
    """The task of a checkpoint from the class that wrote it, by optimum's taxonomy.

    Raises `UserError` for a class this transformers lacks, or whose task is not supported.
    """
    import transformers
    from optimum.exporters.tasks import TasksManager

    names = config.get("architectures") or [None]
    kind = getattr(transformers, str(names[0]), None)
    if kind is None:
        raise UserError(
            f"{directory / 'config.json'} names the architecture {names[0]!r}, which transformers "
            f"{transformers.__version__} does not have",
            "save the model again with a class such as AutoModelForSequenceClassification",
        )
    task = str(TasksManager.infer_task_from_model(kind))
    if task not in {member.value for member in Task}:
        raise UserError(
            f"{directory} holds a {names[0]} ({task}); supported so far: {', '.join(Task)}",
            "fine-tune it for that task first: steelyard finetune",
        )
    return Task(task)


def load_model(directory: Path) -> Any:
    """The checkpoint's model in fp32 on the CPU, in eval mode.

    Raises `UserError` when weights are missing or do not fit.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    with quiet():
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                directory, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{directory} cannot be loaded: {error}", "save the checkpoint again") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{directory} lacks the weights {', '.join(missing[:3])}, so its answers would be random",
            "fine-tune it first: steelyard finetune",
        )
    return model.eval()


def load_tokenizer(directory: Path) -> Any:
    """The checkpoint's tokenizer as transformers reads it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{directory} has no usable tokenizer: {error}", "save the tokenizer beside the weights"
        ) from error


def model_input_names(directory: Path) -> tuple[str, ...]:
    """The inputs that the checkpoint's tokenizer gives its model."""
    return tuple(load_tokenizer(directory).model_input_names)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal inside the block; errors still show."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
