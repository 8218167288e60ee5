"""What a folder of sentence-transformers says of its model's vectors."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifact.labels import read_task
from artifact.pooling import Pooling, PoolingMode
from artifact.predict.folder import inside
from artifact.predict.tokens import TextLimits
from artifact.task import Task
from errors import GateFailed, UserError

MODULES, SENTENCES = "modules.json", "sentence_bert_config.json"

BY_FLAG = {
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_max_tokens": PoolingMode.MAX,
    "pooling_mode_lasttoken": PoolingMode.LAST,
}
"""What sentence-transformers before 6 wrote of its pooling; since then `pooling_mode` names it."""


def gives_vectors(directory: Path) -> bool:
    """Whether sentence-transformers saved a model that gives a vector for each text: its weights may be of a class that
    fills masks or continues texts, whose head is not used then."""
    others = (None, Task.FILL_MASK, Task.FEATURE_EXTRACTION)
    return (directory / MODULES).is_file() and read_task(directory) in others


def sentence_limits(directory: Path, limits: TextLimits) -> TextLimits:
    """A model's limits, and no more tokens than sentence-transformers leaves of a text, where it saved the model: it
    may be fewer than the model has positions for. Raises `UserError` for a file that is damaged."""
    if not (directory / SENTENCES).is_file():
        return limits
    try:
        most = _read(directory, SENTENCES).get("max_seq_length")
    except AttributeError as error:
        raise UserError(f"{directory / SENTENCES} does not say how long a text may be", "save it again") from error
    if not isinstance(most, int) or most < 1:
        return limits
    return replace(limits, max_length_tokens=min(limits.max_length_tokens, most))


def declared_pooling(directory: Path) -> Pooling | None:
    """The pooling of a model that sentence-transformers saved: its `modules.json` lists what runs after the model, each
    with a folder of its own. `None` where that is nothing, or anything but one known pooling and scaling to length 1.

    Raises `UserError` for a file that is damaged or lies outside of the folder.
    """
    if not (directory / MODULES).is_file():
        return None
    try:
        modules = {str(item["type"]).rsplit(".", 1)[-1]: item["path"] for item in _read(directory, MODULES)}
        if "Pooling" not in modules or not modules.keys() <= {"Transformer", "Pooling", "Normalize"}:
            return None
        modes = list(_modes(_read(directory, f"{modules['Pooling']}/config.json")))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / MODULES} does not say what runs after the model", "save it again") from error
    known = [mode for mode in PoolingMode if [mode] == modes]
    return Pooling(known[0], "Normalize" in modules) if known else None


def _modes(config: Any) -> Iterator[str]:
    """Names of the poolings that a configuration asks for; `""` for one that is not known."""
    named = config.get("pooling_mode")
    if named is not None:
        yield from [named] if isinstance(named, str) else named
        return
    for name, value in config.items():
        if name.startswith("pooling_mode_") and value is True:
            yield BY_FLAG.get(name, "")


def _read(folder: Path, name: str) -> Any:
    try:
        return json.loads(inside(folder, name).read_bytes())
    except GateFailed as error:
        raise UserError(error.message, "save the model again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name} cannot be read: {error}", "save the model again") from error
