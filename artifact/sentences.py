"""What a folder of sentence-transformers says of its model's vectors."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from artifact.labels import read_task
from artifact.pooling import Pooling, PoolingMode
from artifact.predict.tokens import TextLimits
from artifact.task import Task
from artifact.tokenizer import read_config, read_limits
from errors import UserError

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
LENGTHS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Which of them says how a text is cut; all but the first are of sentence-transformers' first versions."""

BY_FLAG = {
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_max_tokens": PoolingMode.MAX,
    "pooling_mode_lasttoken": PoolingMode.LAST,
}
"""What sentence-transformers before 6 wrote of its pooling; since then `pooling_mode` names it."""


def gives_vectors(directory: Path) -> bool:
    """Whether sentence-transformers saved a model that gives a vector for each text, pooled from those of its tokens:
    its weights may be of a class that fills masks or continues texts, whose head is not used then.

    Raises `UserError` for a file that is damaged.
    """
    others = (None, Task.FILL_MASK, Task.FEATURE_EXTRACTION)
    return "Pooling" in _modules(directory) and read_task(directory) in others


def sentence_limits(directory: Path) -> TextLimits:
    """A model's limits, with as many tokens as sentence-transformers leaves of a text, where it saved a model of
    vectors: those of its tokenizer may be others. Raises `UserError` for a file that is damaged."""
    if not gives_vectors(directory):
        return read_limits(directory)
    told = next((read_config(directory, name).get("max_seq_length") for name in lengths_of(directory)), None)
    return read_limits(directory, told if isinstance(told, int) and told > 0 else None)


def lengths_of(directory: Path) -> tuple[str, ...]:
    """The files of a folder that say how its texts are cut."""
    return tuple(name for name in LENGTHS if (directory / name).is_file())


def left_out(directory: Path) -> tuple[str, ...]:
    """What sentence-transformers does with a text besides, and an export does not: a sentence for each."""
    found = []
    settings = read_config(directory, SETTINGS) if (directory / SETTINGS).is_file() else {}
    if name := settings.get("default_prompt_name"):
        prompts = settings.get("prompts")
        prompt = prompts.get(name) if isinstance(prompts, dict) else name
        found.append(f"sentence-transformers puts {prompt!r} before each text ({SETTINGS}), and this export does not")
    lowered = any(read_config(directory, name).get("do_lower_case") for name in lengths_of(directory))
    if lowered and not read_config(directory, "tokenizer_config.json").get("do_lower_case"):
        found.append("sentence-transformers makes texts lower case, and this tokenizer does not say that it does")
    return tuple(found)


def declared_pooling(directory: Path) -> Pooling | None:
    """The pooling of a model that sentence-transformers saved: its `modules.json` lists what runs after the model, each
    with a folder of its own. `None` where that is nothing, or anything but one known pooling and scaling to length 1.

    Raises `UserError` for a file that is damaged or lies outside of the folder.
    """
    modules = _modules(directory)
    if "Pooling" not in modules or not modules.keys() <= {"Transformer", "Pooling", "Normalize"}:
        return None
    path = PurePosixPath(modules["Pooling"])
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{directory / MODULES} names '{path}', which is outside of its folder", "save the model again")
    modes = list(_modes(read_config(directory, f"{path}/config.json")))
    known = [mode for mode in PoolingMode if [mode] == modes]
    return Pooling(known[0], "Normalize" in modules) if known else None


def _modules(directory: Path) -> dict[str, str]:
    """Where each module's files lie, by the last part of its class's name; empty where there is no such file. Links are
    followed: model hubs keep files elsewhere."""
    path = directory / MODULES
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "save the model again") from error
    try:
        return {str(item["type"]).rsplit(".", 1)[-1]: str(item["path"]) for item in listed}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not say what runs after the model", "save it again") from error


def _modes(config: dict[str, Any]) -> Iterator[str]:
    """Names of the poolings that a configuration asks for; `""` for one that is not known."""
    named = config.get("pooling_mode")
    if named is not None:
        yield from [named] if isinstance(named, str) else named
        return
    for name, value in config.items():
        if name.startswith("pooling_mode_") and value is True:
            yield BY_FLAG.get(name, "")
