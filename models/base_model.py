"""The model that fine-tuning begins with, loaded with the head that its task needs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from artifact.task import WRITES, Task
from errors import UserError
from models import gguf
from models.checkpoint import quiet
from models.metrics import PROBLEM_TYPES
from models.recordings import Listener, heard
from models.starts import start_id, start_ids
from models.training import FinetuneConfig, Problem

HEADS: Mapping[Task, str] = {
    Task.TEXT_CLASSIFICATION: "AutoModelForSequenceClassification",
    Task.TOKEN_CLASSIFICATION: "AutoModelForTokenClassification",
    Task.QUESTION_ANSWERING: "AutoModelForQuestionAnswering",
    Task.IMAGE_CLASSIFICATION: "AutoModelForImageClassification",
    Task.TEXT_GENERATION: "AutoModelForCausalLM",
    Task.TEXT2TEXT_GENERATION: "AutoModelForSeq2SeqLM",
    Task.SPEECH2TEXT_GENERATION: "AutoModelForSpeechSeq2Seq",
}
"""transformers' class of each task."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model in fp32 and what prepares its inputs: a fast tokenizer, an image processor, or a `Listener`.

    `is_ready` says that no weight is new, so that its answers mean something before any training. An encoder-decoder
    begins to write with `start_ids`.
    """

    processor: Any
    model: Any
    new_modules: tuple[str, ...]
    is_ready: bool
    start_ids: tuple[int, ...] = ()


def load_base(base_model: str, task: Task, problem: Problem, labels: tuple[str, ...], config: FinetuneConfig) -> Base:
    """Load a local folder, a GGUF file or a Hub id; the weights of a new head follow from the seed.

    Raises `UserError` when the model cannot be loaded, lacks weights, is not for such a task, or its tokenizer could
    not be served.
    """
    where, packed = _source(base_model), gguf.is_gguf(base_model)
    written = _written(where, base_model)
    changes: dict[str, Any] = {**_named(task, problem, labels), **_changes(written, base_model, config)}
    torch.manual_seed(config.seed)  # the new head's weights
    with quiet(), _loading(base_model, task):
        import transformers

        processor = _processor(where, task)
        kind = getattr(transformers, HEADS[task])
        model, loaded = kind.from_pretrained(
            where.pop("name"),
            output_loading_info=True,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            **where,
            **changes,
            **(gguf.unpacked() if packed else {}),
        )
    new = [*loaded["missing_keys"], *(found[0] for found in loaded["mismatched_keys"])]
    if len(new) > len(model.state_dict()) / 2:  # a new head lacks two or three
        raise UserError(
            f"the weights of {base_model} are not those of the {model.config.model_type} in its config.json",
            "give the folder as save_pretrained wrote it",
        )
    if task is Task.IMAGE_CLASSIFICATION:
        return Base(processor, model, _modules(new), is_ready=not new and _knows(written, labels))
    _check_tokenizer(processor, base_model)
    if task is Task.SPEECH2TEXT_GENERATION:
        _check_whole(new, base_model)
        return _hearing(model, processor, base_model, config)
    processor.model_max_length = min(config.max_length_tokens, processor.model_max_length)
    if task is Task.TEXT2TEXT_GENERATION:
        positions = getattr(model.config, "max_position_embeddings", None) or processor.model_max_length
        processor.model_max_length = min(processor.model_max_length, positions)
        _check_languages(processor, base_model)
    if processor.pad_token is None:
        processor.pad_token = processor.eos_token  # decoders often have none; what is padded is masked
    if task in WRITES:
        start = (start_id(model),) if task is Task.TEXT2TEXT_GENERATION else ()
        if not start:
            _check_causal(model, base_model)
        _check_whole(new, base_model)
        return Base(processor, model, (), is_ready=True, start_ids=start)
    if processor.pad_token_id is None:
        raise UserError(f"the tokenizer of {base_model} has no token to pad with", "set its pad_token")
    model.config.pad_token_id = processor.pad_token_id  # classifiers on decoders look for the last other token
    return Base(processor, model, _modules(new), is_ready=not new and _knows(written, labels))


def _source(base_model: str) -> dict[str, str]:
    """What `from_pretrained` calls it: a folder or an id, and a GGUF file inside."""
    return gguf.source(base_model) if gguf.is_gguf(base_model) else {"name": base_model}


@contextmanager
def _loading(base_model: str, task: Task) -> Iterator[None]:
    """One sentence for what the libraries raise about a base model."""
    try:
        yield
    except ImportError as error:
        first = next(iter(str(error).strip().splitlines()), "a package is missing")
        raise UserError(f"the base model {base_model} cannot be loaded: {first}") from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        is_there = Path(base_model).is_dir()
        raise UserError(
            f"the base model {base_model} cannot be loaded for {task}: {first}",
            "give a model for this task, or name another one with --task"
            if is_there
            else "without network give a local folder; 'steelyard demo' uses a model that a package carries",
        ) from error


def _processor(where: Mapping[str, str], task: Task) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer

    kind = AutoImageProcessor if task is Task.IMAGE_CLASSIFICATION else AutoTokenizer
    more: dict[str, Any] = {name: value for name, value in where.items() if name != "name"}
    processor = kind.from_pretrained(where["name"], **more)
    if task is Task.TOKEN_CLASSIFICATION and getattr(processor, "add_prefix_space", None) is False:
        # a byte-level tokenizer takes separate words only if each begins with a space, the first, too
        processor = kind.from_pretrained(where["name"], add_prefix_space=True, **more)
    return processor


def _check_tokenizer(tokenizer: Any, base_model: str) -> None:
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # transformers invents one where there is none
        raise UserError(f"{base_model} has no tokenizer", "save the tokenizer beside the weights")
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {base_model} has no fast version and cannot be served without transformers",
            "choose a base model that has a tokenizer.json",
        )


def _check_causal(model: Any, base_model: str) -> None:
    """Raise `UserError` for a model that looks ahead, as an encoder does: what it says of a token would be no guess."""
    first = torch.full((1, 4), 5)
    other = first.clone()
    other[0, -1] = 6
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        seen = [model(input_ids=ids).logits[0, 0].float() for ids in (first, other)]
    model.train(was_training)
    if not torch.allclose(seen[0], seen[1], atol=1e-3, rtol=1e-3):
        raise UserError(
            f"{base_model} looks at the tokens that follow, so it cannot learn to continue texts",
            "give a decoder, such as a Llama, Qwen or GPT-2",
        )


def _check_languages(tokenizer: Any, base_model: str) -> None:
    """Raise `UserError` for a tokenizer of many languages, such as mBART's, that would take every target for one."""
    if getattr(tokenizer, "tgt_lang", "") is None:
        raise UserError(
            f"{base_model} writes many languages, and its tokenizer does not say which",
            "write src_lang and tgt_lang into its tokenizer_config.json",
        )


def _check_whole(new: list[str], base_model: str) -> None:
    if new:
        raise UserError(f"{base_model} lacks the weights {', '.join(new[:3])}", "give a whole language model")


def _hearing(model: Any, tokenizer: Any, base_model: str, config: FinetuneConfig) -> Base:
    """A model that hears, and learns to write in a language, which its checkpoint then says.

    Raises `UserError` where nothing can be written within the limit of its tokens.
    """
    extractor, sound = heard(base_model)
    start = start_ids(model, config.language)
    if config.language is not None:
        model.generation_config.language = config.language
    most = min(tokenizer.model_max_length, model.config.max_target_positions)
    if config.max_length_tokens <= len(start):
        raise UserError(
            f"--max-length {config.max_length_tokens} leaves no room behind the {len(start)} tokens that a text of "
            f"{base_model} begins with",
            f"give up to {most}",
        )
    return Base(Listener(extractor, tokenizer, sound, most), model, (), is_ready=True, start_ids=start)


def _named(task: Task, problem: Problem, labels: tuple[str, ...]) -> dict[str, Any]:
    """What the head's configuration says of its labels."""
    if problem is Problem.SPAN:
        return {"num_labels": 2}
    if not labels:
        return {}
    names = dict(enumerate(labels))
    said: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
    }
    kind = PROBLEM_TYPES.get(problem)
    return said if kind is None else {**said, "problem_type": kind}


def _modules(weights: list[str]) -> tuple[str, ...]:
    """The modules that new weights belong to, by their whole names: many layers may have a part called `dense`."""
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in weights))


def _knows(written: Any, labels: tuple[str, ...]) -> bool:
    """Whether the base model's own labels are these."""
    names = getattr(written, "id2label", None) or {}
    return not labels or [names.get(place) for place in range(len(names))] == list(labels)


def _written(where: Mapping[str, str], base_model: str) -> Any:
    """The base model's own configuration; `None` where it cannot be read, which loading the model explains."""
    from transformers import AutoConfig

    more = {name: value for name, value in where.items() if name != "name"}
    with quiet():
        try:
            return AutoConfig.from_pretrained(where["name"], **more)
        except (OSError, ValueError, KeyError, ImportError):
            return None


def _changes(written: Any, base_model: str, config: FinetuneConfig) -> dict[str, float]:
    """What the model's configuration shall say instead: every dropout that it names, and how many layers."""
    changes: dict[str, float] = {}
    if written is None:
        return changes
    if config.dropout is not None:
        names = [name for name in written.to_dict() if "dropout" in name or name.endswith("pdrop")]
        changes.update(dict.fromkeys(names, config.dropout))
    if config.layers is not None and getattr(written, "is_encoder_decoder", False):
        raise UserError(f"--layers keeps the first of one stack, and {base_model} has two", "leave it out")
    if config.layers is not None:
        most = getattr(written, "num_hidden_layers", 0)
        if config.layers > most:
            raise UserError(f"--layers {config.layers}, and {base_model} has {most}", f"keep 1 to {most} of them")
        changes["num_hidden_layers"] = config.layers
    return changes


def with_lora(base: Base, rank: int) -> Any:
    """The model with two small matrices beside each linear layer (peft); only these and new heads are trained.

    Scaled by twice the rank over the rank, and the second matrix begins with zeros (Hu et al., ICLR 2022).
    """
    from peft import LoraConfig, get_peft_model

    made: Callable[..., Any] = get_peft_model
    heads = list(base.new_modules) or None
    try:
        return made(
            base.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", modules_to_save=heads)
        )
    except ValueError as error:
        raise UserError(
            f"--lora finds no linear layers in this {base.model.config.model_type}", "leave it out"
        ) from error
