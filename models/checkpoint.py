"""A folder written by `save_pretrained`: check it, describe it, load it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.identity import checkpoint_sha256
from artifact.labels import read_activation, read_labels, read_task
from artifact.predict.tokens import TextLimits
from artifact.sentences import sentence_limits
from artifact.task import ENDINGS, WRITES, Activation, Task
from artifact.tokenizer import read_config, read_limits
from errors import UserError
from models.gguf import is_gguf
from models.quiet import ON_IMPORT, hushed, unseen

ONE_PASS = tuple(task for task in Task if task not in WRITES)
"""Tasks whose models answer in one pass."""

WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How names of classes that write text token by token end, as far as the end tells."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that has all it needs: weights, configuration and, for texts (else `None`), a fast tokenizer.

    `problem` is the configuration's `problem_type`. `pickled` weights are loaded only because the user asked for it.
    """

    directory: Path
    task: Task
    labels: tuple[str, ...]
    activation: Activation
    problem: str | None
    limits: TextLimits | None
    sha256: str
    pickled: bool = False


def open_checkpoint(directory: Path, *, task: Task | None = None, allow_pickle: bool = False) -> Checkpoint:
    """Check a local checkpoint and read what it is, without loading its weights.

    `task` overrides what its class says. Raises `UserError` naming what is missing: the folder, `config.json`,
    safetensors weights (or with `allow_pickle` others), the tokenizer, or a task that this tool knows.
    """
    if task in WRITES:
        raise UserError(f"{directory} holds a model that answers in one pass, which is not {task}", "leave --task out")
    pickled = check_files(directory, allow_pickle=allow_pickle)
    config = read_config(directory, "config.json")
    takes_text = _model_class(directory, config).main_input_name == "input_ids"
    task = task or infer_task(directory, config)
    limits = sentence_limits if task is Task.FEATURE_EXTRACTION else read_limits
    return Checkpoint(
        directory=directory,
        limits=limits(directory) if takes_text else None,
        task=task,
        labels=read_labels(directory),
        activation=read_activation(directory),
        problem=config.get("problem_type"),
        sha256=checkpoint_sha256(directory),
        pickled=pickled,
    )


def check_files(model: Path, *, allow_pickle: bool = False) -> bool:
    """Check what can be checked of a checkpoint without torch, whose import takes seconds. Returns whether its weights
    are pickles.

    Raises `UserError` where the folder, `config.json` or safetensors weights (or with `allow_pickle` others) are
    missing, or a GGUF file is.
    """
    if is_gguf(str(model)):
        if not model.is_file():
            raise UserError(f"{model} does not exist", "check the path")
        return False
    if not model.is_dir():
        raise UserError(f"{model} does not exist or is not a folder", "give a folder written by save_pretrained")
    read_config(model, "config.json")
    pickled = sorted(path.name for path in model.glob("*.bin"))
    safe = bool(list(model.glob("*.safetensors")))
    if not safe and not (pickled and allow_pickle):
        raise UserError(
            f"{model} has no safetensors weights" + (f", only the pickle {pickled[0]}" if pickled else ""),
            "save it with model.save_pretrained(folder); pickles can run code, so they are loaded only with "
            "--allow-pickle, and those of language models not at all",
        )
    return not safe


def writes_text(model: Path) -> bool:
    """Whether a folder holds a model that writes text token by token, such as a Llama or a T5, by its configuration
    alone; a GGUF file always does."""
    if is_gguf(str(model)):
        return True
    if not (model / "config.json").is_file():
        return False
    name = str((read_config(model, "config.json").get("architectures") or [None])[0])
    if name.endswith(WRITERS):
        return True  # the name of its class says enough, and transformers takes seconds to load
    if read_task(model) not in (None, Task.FEATURE_EXTRACTION):
        return False
    import transformers

    with hushed(*ON_IMPORT):
        kind = getattr(transformers, name, None)
    return kind is not None and bool(kind.can_generate())


def hears(directory: Path) -> bool:
    """Whether a checkpoint's class reads recordings."""
    return str(_model_class(directory, read_config(directory, "config.json")).main_input_name) == "input_features"


def text_limits(checkpoint: Checkpoint) -> TextLimits:
    """The limits of a checkpoint that takes texts; `UserError` for one that does not."""
    if checkpoint.limits is None:
        raise UserError(f"{checkpoint.directory} holds a model that takes no texts ({checkpoint.task})")
    return checkpoint.limits


def infer_task(directory: Path, config: dict[str, Any]) -> Task:
    """The task of a checkpoint from the class that wrote it, by optimum's taxonomy.

    Raises `UserError` for a class this transformers lacks, or whose task is not supported.
    """
    from optimum.exporters.tasks import TasksManager

    kind = _model_class(directory, config)
    if kind.can_generate():
        raise UserError(
            f"{directory} holds a {kind.__name__}, which generates text; only 'steelyard export' takes such so far",
            "take an encoder, or fine-tune its ForSequenceClassification class",
        )
    try:
        task = str(TasksManager.infer_task_from_model(kind))
    except ValueError:  # a class such as DeiT's or T5's encoder is not in its table
        endings = (task for ending, task in ENDINGS.items() if kind.__name__.endswith(ending))
        task = next(endings, "of no known task")
    if task not in {member.value for member in ONE_PASS}:
        raise UserError(
            f"{directory} holds a {kind.__name__} ({task}); supported so far: {', '.join(ONE_PASS)}",
            "fine-tune it for one of them, or name its task with --task",
        )
    return Task(task)


def _model_class(directory: Path, config: dict[str, Any]) -> Any:
    """The class that wrote a checkpoint; `UserError` when this transformers does not have it."""
    import transformers

    names = config.get("architectures") or [None]
    kind = getattr(transformers, str(names[0]), None)
    if kind is None:
        raise UserError(
            f"{directory / 'config.json'} names the architecture {names[0]!r}, which transformers "
            f"{transformers.__version__} does not have",
            "save the model again with a class such as AutoModelForSequenceClassification",
        )
    return kind


def _class_for(directory: Path, config: dict[str, Any], task: Task | None) -> Any:
    """The class that wrote a checkpoint, or the one that transformers has for another `task`."""
    kind = _model_class(directory, config)
    if task is None:
        return kind
    from optimum.exporters.tasks import TasksManager

    try:
        written_for: Task | None = infer_task(directory, config)
    except UserError:
        written_for = None
    return kind if written_for is task else TasksManager.get_model_class_for_task(task.value)


@unseen("torchao")  # transformers imports it for any model where it is installed: 0.4 s of a cold start
def load_model(directory: Path, *, task: Task | None = None, allow_pickle: bool = False) -> Any:
    """The checkpoint's model in fp32 on the CPU and in eval mode: of the class that wrote it, or for another `task`.

    Raises `UserError` when weights are missing or do not fit.
    """
    import torch
    from safetensors import SafetensorError

    config = read_config(directory, "config.json")
    written = _model_class(directory, config)
    if config.get("model_type") != written.config_class.model_type:
        raise UserError(
            f"{directory} cannot be loaded: config.json says {config.get('model_type')}, and {written.__name__} is of "
            f"{written.config_class.model_type}",
            "save the checkpoint again",
        )
    kind = _class_for(directory, config, task)
    with quiet():
        try:
            model, report = kind.from_pretrained(
                directory,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=not allow_pickle,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{directory} cannot be loaded: {error}", "save the checkpoint again") from error
    missing = sorted(name for name in report["missing_keys"] if not _is_unread(name, task))
    if missing:
        raise UserError(
            f"{directory} lacks the weights {', '.join(missing[:3])}, so its answers would be random",
            "fine-tune it first: steelyard finetune",
        )
    return model.eval()


def _is_unread(name: str, task: Task | None) -> bool:
    """Whether a weight does not matter: features are read before the pooler, which many checkpoints lack."""
    return task is Task.FEATURE_EXTRACTION and name.startswith("pooler.")


def load_tokenizer(directory: Path) -> Any:
    """The checkpoint's tokenizer as transformers reads it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{directory} has no usable tokenizer: {error}", "save the tokenizer beside the weights"
        ) from error


def load_image_processor(directory: Path) -> Any:
    """What prepares pictures for the checkpoint, as transformers reads it."""
    from transformers import AutoImageProcessor

    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"{directory} has no usable image processor: {error}", "save the image processor beside the weights"
        ) from error


def model_input_names(directory: Path) -> tuple[str, ...]:
    """The inputs that the checkpoint's tokenizer gives its model, or the one of a model that takes no texts."""
    main = str(_model_class(directory, read_config(directory, "config.json")).main_input_name)
    return tuple(load_tokenizer(directory).model_input_names) if main == "input_ids" else (main,)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal inside the block; errors still show."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with hushed():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
