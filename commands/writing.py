"""Artifacts that write text, on the command line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.stages import need
from errors import UserError

if TYPE_CHECKING:
    from artifact.generate.command import Asked


def is_language_artifact(artifact: Path) -> bool:
    """Whether a folder is an artifact that writes text; `UserError` when it is none at all."""
    need("cpu", "onnxruntime")
    from artifact.generate.manifest import generates
    from artifact.verify import check_is_artifact

    check_is_artifact(artifact)
    return generates(artifact)


def asked_text(most: int, stop: tuple[str, ...], *, is_chat: bool, system: str | None, **drawn: Any) -> "Asked":
    """How texts are continued: at most so many tokens, up to texts that end it, `drawn` as `Sampling` says.

    Raises `UserError` for values that cannot be.
    """
    from artifact.generate.command import Asked
    from artifact.generate.sampling import Sampling
    from artifact.generate.writer import Wanted

    return Asked(wanted=Wanted(most, Sampling(**drawn), stop), is_chat=is_chat, system=system)


def write(
    artifact: Path,
    texts: list[str],
    data: Path | None,
    out: Path | None,
    text_column: str | None,
    kept: list[str],
    asked: "Asked",
    *,
    threads: int | None,
    as_json: bool,
) -> Iterator[str]:
    """Pieces to print of what a language model writes: as they come for one text, else a line for each."""
    from artifact.generate.command import (
        asked_on_terminal,
        converse,
        lines_of,
        pieces_of,
        shown_at_once,
        typed_lines,
        write_file,
    )
    from artifact.generate.generator import Generator
    from artifact.predict.program import told_on_terminal
    from artifact.predict.rows import ItemColumns

    if texts and data:
        raise UserError("both TEXT and --data are given", "give one of them")
    if bool(out) != bool(data):
        raise UserError("--out goes with --data", "name both, or neither")
    if asked.system is not None and not asked.is_chat:
        raise UserError("--system is given, and no --chat", "add --chat")
    generator = Generator.open(artifact, threads=threads)
    if data and out:
        with told_on_terminal() as told:
            rows = write_file(generator, data, out, asked, ItemColumns(text_column, None), tuple(kept), told)
        yield json.dumps({"rows": rows, "out": str(out)}) + "\n" if as_json else f"{rows:,} texts in {out}\n"
    elif asked.is_chat and not texts and sys.stdin.isatty():
        converse(generator, asked, asked_on_terminal, shown_at_once)
    elif len(texts) == 1 and not as_json:
        yield from pieces_of(generator, texts[0], asked)
    else:
        lines = lines_of(generator, texts or typed_lines(), asked, as_json=as_json)
        yield from (f"{line}\n" for line in lines)
