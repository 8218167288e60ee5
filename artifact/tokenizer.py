"""What a checkpoint's tokenizer files say, read without transformers."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from artifact.predict.tokens import TextEncoder, TextLimits
from errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


OFFSET_POSITIONS = frozenset(
    (
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "longformer",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
    )
) | {"xlm-roberta-xl", "xmod", "luke"}
"""Kinds of models whose first position has the number of the padding's id plus one."""


def read_config(directory: Path, name: str) -> dict[str, Any]:
    """A JSON object of a checkpoint; `UserError` when it is missing or damaged."""
    path = directory / name
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{directory} has no {name}, so it is not a checkpoint",
            "give a folder written by save_pretrained, with its tokenizer",
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "save the checkpoint again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object", "save the checkpoint again")
    return value


def read_limits(directory: Path, told: int | None = None) -> TextLimits:
    """Limits of a checkpoint's tokenizer, or where something else has `told` how many tokens a text may have, that,
    never longer than its model's positions.

    Raises `UserError` when the folder has no `tokenizer.json` (slow-only tokenizers cannot be served without
    transformers).
    """
    if not (directory / "tokenizer.json").is_file():
        raise UserError(
            f"{directory} has no tokenizer.json",
            "save the tokenizer beside the weights with AutoTokenizer.from_pretrained(…).save_pretrained(folder); "
            "a tokenizer without a fast version cannot be served without transformers",
        )
    tokenizer = read_config(directory, "tokenizer_config.json")
    model = read_config(directory, "config.json")
    lengths = [told or tokenizer.get("model_max_length"), _positions(model)]
    known = [int(length) for length in lengths if isinstance(length, int | float) and 0 < length < 1e6]
    if not known:
        raise UserError(
            f"{directory} does not say how long a text may be",
            "set model_max_length in tokenizer_config.json",
        )
    pad_id = model.get("pad_token_id")
    return TextLimits(
        max_length_tokens=min(known),
        pad_id=pad_id if isinstance(pad_id, int) else 0,
        pad_type_id=0,
        pad_left=tokenizer.get("padding_side") == "left",
        truncate_left=tokenizer.get("truncation_side") == "left",
    )


def _positions(model: dict[str, Any]) -> Any:
    """How many tokens a model has positions for; RoBERTa and its kin begin to count after the padding's id."""
    positions = model.get("max_position_embeddings") or model.get("max_target_positions")
    if isinstance(positions, int) and model.get("model_type") in OFFSET_POSITIONS:
        return positions - int(model.get("pad_token_id") or 0) - 1
    return positions


def plain_tokenizer_json(directory: Path) -> str:
    """`tokenizer.json` without baked-in padding and truncation.

    Raises `UserError` when the file is damaged.
    """
    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise UserError(f"{path} cannot be read: {error}", "save the tokenizer again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return str(tokenizer.to_str(pretty=True))


def text_encoder(directory: Path, limits: TextLimits, *, window_overlap: int | None = None) -> TextEncoder:
    """The encoder that serves this folder's tokenizer."""
    return TextEncoder(plain_tokenizer_json(directory), limits, window_overlap=window_overlap)
