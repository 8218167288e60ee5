"""The model that fine-tuning begins with, loaded with a new head."""

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from errors import UserError
from models.checkpoint import quiet
from models.training import FinetuneConfig


def load_base(base_model: str, labels: tuple[str, ...], config: FinetuneConfig) -> tuple[Any, Any]:
    """The tokenizer, and the model in fp32 with a head for these labels, whose weights follow from the seed.

    Raises `UserError` when the model cannot be loaded, lacks weights, or its tokenizer could not be served.
    """
    names = dict(enumerate(labels))
    changes = _changes(base_model, config)
    torch.manual_seed(config.seed)  # the new head's weights
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(base_model)
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                base_model,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,
                num_labels=len(names),
                problem_type="single_label_classification",
                id2label=names,
                label2id={name: index for index, name in names.items()},
                ignore_mismatched_sizes=True,
                **changes,
            )
        except (OSError, ValueError, SafetensorError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"the base model {base_model} cannot be loaded: {first}",
                "without network give a local folder; 'steelyard demo' uses a model that a package carries",
            ) from error
    if len(loaded["missing_keys"]) > len(model.state_dict()) / 2:  # a new head lacks two or three
        raise UserError(
            f"the weights of {base_model} are not those of the {model.config.model_type} in its config.json",
            "give the folder as save_pretrained wrote it",
        )
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # transformers invents one where there is none
        raise UserError(f"{base_model} has no tokenizer", "save the tokenizer beside the weights")
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {base_model} has no fast version and cannot be served without transformers",
            "choose a base model that has a tokenizer.json",
        )
    tokenizer.model_max_length = min(config.max_length_tokens, tokenizer.model_max_length)
    return tokenizer, model


def _changes(base_model: str, config: FinetuneConfig) -> dict[str, float]:
    """What the model's configuration shall say instead: every dropout that it names, and how many layers."""
    if config.dropout is None and config.layers is None:
        return {}
    with quiet():
        try:
            written = AutoConfig.from_pretrained(base_model)
        except (OSError, ValueError):
            return {}  # loading the model says what is wrong
    changes: dict[str, float] = {}
    if config.dropout is not None:
        names = [name for name in written.to_dict() if "dropout" in name or name.endswith("pdrop")]
        changes.update(dict.fromkeys(names, config.dropout))
    if config.layers is not None:
        most = getattr(written, "num_hidden_layers", 0)
        if config.layers > most:
            raise UserError(f"--layers {config.layers}, and {base_model} has {most}", f"keep 1 to {most} of them")
        changes["num_hidden_layers"] = config.layers
    return changes
