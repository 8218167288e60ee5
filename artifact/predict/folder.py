"""The files of an artifact: where they may lie, and whether they are what was packed."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from artifact.predict.typed import read_json
from errors import GateFailed

MANIFEST = "steelyard.json"


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """Size and hash of one file, as it was packed."""

    size_bytes: int
    sha256: str


def check_named(graphs: Mapping[str, str], needed: Iterable[str], files: Mapping[str, PackedFile]) -> None:
    """Raise `ValueError` for a manifest that names a graph out of place, proves a needed file not, or proves itself.

    `graphs` are its graphs by the fields that name them.
    """
    for field, name in graphs.items():
        if not name.startswith("onnx/") or not name.endswith(".onnx"):
            raise ValueError(f"{field} is {name[:60]!r}, not onnx/….onnx")
    unproved = [name for name in (*graphs.values(), *needed) if name not in files]
    if unproved:
        raise ValueError(f"it has no sha256 of {unproved[0]}")
    if MANIFEST in files:
        raise ValueError("it names itself among its files")


def beside(model_file: str, files: Mapping[str, PackedFile]) -> dict[str, PackedFile]:
    """The graph, and what lies beside it and may hold its weights."""
    return {name: file for name, file in files.items() if Path(name).parent == Path(model_file).parent}


def read_own_version(folder: Path, version: int, most_bytes: int) -> tuple[dict[str, Any], Path]:
    """The manifest's content and its path; `GateFailed` if it is missing, damaged, or not of this `schema_version`."""
    path = folder / MANIFEST
    if path.is_symlink():
        raise GateFailed(f"{path} is a link; copy the artifact again")
    value = read_json(path, most_bytes)
    if value.get("schema_version") != version:
        raise GateFailed(
            f"{path} has schema_version {str(value.get('schema_version'))[:20]}; this reads {version}: use the "
            "predict.py that came with the artifact"
        )
    return value, path


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; `GateFailed` if it would lie outside, also through a link, or is missing."""
    path = folder / name
    parts = PurePosixPath(name).parts
    if not name or "\\" in name or "\0" in name or Path(name).is_absolute() or ".." in parts:
        raise GateFailed(f"a file outside of {folder} is named: {name!r}")
    try:
        is_inside, is_file = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, half a character, links in a circle
        raise GateFailed(f"{folder} names a file that cannot be: {name[:60]!r} ({error})") from None
    if not is_inside:
        raise GateFailed(f"{path} is a link to a file outside of {folder}")
    if not is_file:
        raise GateFailed(f"{path} is missing; copy the folder again")
    return path


def check_files(folder: Path, files: Mapping[str, PackedFile]) -> None:
    """Compare every file with its size and SHA-256 in the manifest; `GateFailed` names the first that differs.

    Sizes come first, so that a file which is far too large costs nothing.
    """
    paths = {name: inside(folder, name) for name in files}
    for name, path in paths.items():
        if path.stat().st_size != files[name].size_bytes:
            raise GateFailed(
                f"{path} was changed or damaged ({path.stat().st_size:,} bytes, expected {files[name].size_bytes:,}); "
                "copy the artifact again"
            )
    for name, path in paths.items():
        try:
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise GateFailed(f"{path} cannot be read: {error.strerror or error}") from None
        if actual != files[name].sha256:
            raise GateFailed(
                f"{path} was changed or damaged (sha256 {actual[:12]}…, expected {files[name].sha256[:12]}…); "
                "copy the artifact again"
            )
