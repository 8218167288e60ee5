"""How the vectors of a text's tokens become one, and what a folder of sentence-transformers says of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from artifact.predict.folder import inside
from errors import GateFailed, UserError

MODULES = "modules.json"

POOLED = "sentence_embedding"
"""What a pooled model's output is called."""


class PoolingMode(StrEnum):
    """How a text's token vectors become one, in sentence-transformers' names."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    LAST = "lasttoken"


@dataclass(frozen=True, slots=True)
class Pooling:
    """A mode, and whether the vector is scaled to length 1."""

    mode: PoolingMode
    normalize: bool = False


def asking_for(pooling: Pooling | None) -> str:
    """The options with which `export` makes it; any, where none is known."""
    if pooling is None:
        return "--pooling, such as --pooling mean"
    return f"--pooling {pooling.mode}{' --normalize' if pooling.normalize else ''}"


BY_FLAG = {
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_max_tokens": PoolingMode.MAX,
    "pooling_mode_lasttoken": PoolingMode.LAST,
}
"""What sentence-transformers before 6 wrote of its pooling; since then `pooling_mode` names it."""


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
