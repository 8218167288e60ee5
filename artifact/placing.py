"""Where an artifact is put: whole or not at all, and never over anything else."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from artifact.precision import Precision
from artifact.predict.folder import MANIFEST, PackedFile
from artifact.records import cannot_write, sha256_file, umask
from errors import UserError


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """What `pack` made. `size_bytes` is the sum of all files."""

    directory: str
    precision: Precision
    size_bytes: int
    files: int

    @classmethod
    def of(cls, folder: Path, precision: Precision) -> "Packed":
        """What lies in a finished folder."""
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        return cls(directory=str(folder), precision=precision, size_bytes=sum(sizes), files=len(sizes))


def check_target(out: Path) -> None:
    """Raise `UserError` for a file, and for a folder that holds anything but an earlier artifact's own files."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file", "name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise UserError(f"--out {out} holds something else than an artifact", "name a new or empty folder")
    ours = {MANIFEST, *_earlier_files(out)}
    names = (path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file())
    foreign = [name for name in names if name.as_posix() not in ours and "__pycache__" not in name.parts]
    if foreign:
        raise UserError(
            f"{out / foreign[0]} is not a part of the artifact and would be lost", "move it elsewhere first"
        )


def _earlier_files(out: Path) -> tuple[str, ...]:
    """The files that an artifact which lies there already names, whatever its version (schema 1 has `sha256`)."""
    try:
        value = msgspec.json.decode((out / MANIFEST).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ()
    named = (value.get("files") or value.get("sha256")) if isinstance(value, dict) else None
    return tuple(named) if isinstance(named, dict) else ()


@contextmanager
def placed(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, which takes its place when the block ends well; else nothing is left of it.

    An artifact that is already there is replaced. Raises `UserError` where it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~umask())
        _swap(temporary, out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def packed_files(folder: Path) -> Mapping[str, PackedFile]:
    """Size and hash of every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): PackedFile(size_bytes=path.stat().st_size, sha256=sha256_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _swap(temporary: Path, out: Path) -> None:
    """Put the finished folder in place; an earlier artifact is moved aside first and removed last."""
    if not out.exists():
        temporary.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    earlier = old / "artifact"
    try:
        out.rename(earlier)
        temporary.rename(out)
    except BaseException:
        if earlier.exists():
            earlier.rename(out)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
