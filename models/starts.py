"""What a text begins with that an encoder-decoder writes: of a recording, the tokens of one language and one task,
without times."""

from collections.abc import Mapping
from typing import Any

from errors import UserError


def start_id(model: Any) -> int:
    """The token that a decoder begins with. Raises `UserError` for a model that says none."""
    for config in (model.generation_config, model.config):
        if getattr(config, "decoder_start_token_id", None) is not None:
            return int(config.decoder_start_token_id)
    raise UserError(
        f"{type(model).__name__} has no decoder_start_token_id, so nothing says how it begins",
        "save the checkpoint with one in generation_config.json",
    )


def start_ids(model: Any, language: str | None) -> tuple[int, ...]:
    """The tokens that transformers' `generate` begins with for this language, or else the one that the checkpoint's
    generation settings say, and for their task.

    Raises `UserError` for a model of many languages where nothing says which, and for one that it does not know.
    """
    said = model.generation_config
    known: Mapping[str, int] = getattr(said, "lang_to_id", None) or {}
    tasks: Mapping[str, int] = getattr(said, "task_to_id", None) or {}
    named, task = language or getattr(said, "language", None), getattr(said, "task", None)
    if named is not None:
        ids = [_language_id(named, known)]
    else:
        forced = getattr(said, "forced_decoder_ids", None) or getattr(model.config, "forced_decoder_ids", None) or ()
        ids = [] if task else [token for _, token in forced]
    if known and (not ids or ids[0] is None):
        raise UserError(
            "this model writes many languages, and nothing says which",
            "name one with --language, such as --language en",
        )
    if task is not None:
        if task not in tasks:
            raise UserError(
                f"the checkpoint's task is '{task}', which it does not know", f"it knows: {', '.join(tasks)}"
            )
        ids.append(tasks[task])
    elif named is not None and "transcribe" in tasks:
        ids.append(tasks["transcribe"])
    timeless = getattr(said, "no_timestamps_token_id", None)
    if timeless is not None and ids[-1:] != [timeless]:
        ids.append(timeless)
    return (start_id(model), *(token for token in ids if token is not None))


def never_first(model: Any) -> tuple[int, ...]:
    """The tokens that `generate` does not write first, behind those (`begin_suppress_tokens`)."""
    return tuple(getattr(model.generation_config, "begin_suppress_tokens", None) or ())


def _language_id(name: str, known: Mapping[str, int]) -> int:
    if not known:
        raise UserError(f"the language is '{name}', and this model knows but one", "leave --language out")
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(name.lower(), name.lower())
    for spelled in (name.lower(), f"<|{code}|>"):
        if spelled in known:
            return int(known[spelled])
    codes = ", ".join(token.strip("<|>") for token in known)
    raise UserError(f"this model does not know the language '{name}'", f"it knows: {codes}")
