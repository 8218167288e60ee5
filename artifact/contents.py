"""What every artifact holds, whatever its model is for: the graph, documents, its program and what that needs."""

import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from artifact.companions import DOCKERFILE
from artifact.language import LanguageVariant
from artifact.layout import Extras
from artifact.lock import locked
from artifact.records import write_bytes
from artifact.run_folder import RunFolder
from artifact.task import Task
from artifact.variant import Derived, Variant, is_whole
from errors import GateFailed, UserError

DOCUMENTS = ("LICENSE", "LICENSE.txt", "NOTICE")


def packable(run: RunFolder, variant: Variant | LanguageVariant, graph: Path) -> Path:
    """The checkpoint of a variant that may be packed.

    Raises `UserError` when its file is another, or nothing says what its inputs are made of; `GateFailed` when it did
    not pass its export.
    """
    if not is_whole(variant, graph.parent):
        raise UserError(f"{graph} is not the file that was exported", "export it again")
    if not variant.passed:
        raise GateFailed(f"{graph} did not pass its export: {'; '.join(variant.reasons)}", "pack another precision")
    if variant.task is Task.MODULE:
        raise UserError(
            f"{graph} is of a plain module, and nothing says how its inputs are made",
            "serve the graph with onnxruntime; variant.json describes its inputs and outputs",
        )
    if run.checkpoint is None:
        raise UserError(
            f"{run.directory} has no checkpoint, so its tokenizer is unknown", "export again from the checkpoint"
        )
    return run.checkpoint


def copy_graphs(variant: Derived, folder: Path, target: Path) -> dict[str, str]:
    """Copy a variant's files from `folder` into `onnx/` of `target`; where each of its graphs is there.

    A graph's name has the ending of its precision, as transformers.js knows it; the weights keep theirs, which graphs
    name.
    """
    (target / "onnx").mkdir()
    placed = {}
    for name in variant.files:
        path = Path(name)
        if path.suffix == ".onnx":
            placed[name] = f"onnx/{path.stem}{variant.precision.file_suffix}.onnx"
        shutil.copyfile(folder / name, target / placed.get(name, f"onnx/{name}"))
    return placed


def copy_documents(checkpoint: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy what the checkpoint has of these files, and of those that say what may be done with it."""
    for name in (*names, *DOCUMENTS):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)


def write_program(folder: Path, program: str, packages: Iterable[str], extras: Extras) -> None:
    """Write `predict.py` and `requirements.txt` at the versions that are installed here; a Dockerfile where asked."""
    write_bytes(folder / "predict.py", program.encode())
    pinned = [f"{name}=={version(name)}" for name in packages]
    requirements = locked(pinned) if extras.hashes else "".join(f"{line}\n" for line in pinned)
    write_bytes(folder / "requirements.txt", requirements.encode())
    if extras.dockerfile:
        write_bytes(folder / "Dockerfile", DOCKERFILE.encode())
