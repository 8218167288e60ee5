"""The files of an artifact: where they may lie, and whether they are what was packed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from errors import GateFailed

MANIFEST = "steelyard.json"


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """Size and hash of one file, as it was packed."""

    size_bytes: int
    sha256: str


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
