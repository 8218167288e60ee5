"""Typed JSON files: written whole or not at all, read back with the file and the field named when they are wrong."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from errors import UserError

T = TypeVar("T")


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(paths: Iterable[Path]) -> str:
    """One hex SHA-256 over the names and bytes of several files, whatever their order."""
    lines = sorted(f"{path.name} {sha256_file(path)}" for path in paths)
    return sha256_bytes("\n".join(lines).encode())


def fingerprint(parts: Mapping[str, object]) -> str:
    """Hex SHA-256 of everything a result depends on: equal fingerprints mean the work need not be done again."""
    return sha256_bytes(msgspec.json.encode(parts, order="deterministic"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it onto `path` only if the block ends well.

    Raises `UserError` when the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def umask() -> int:
    """Permissions that new files of this process do not get."""
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


def cannot_write(path: Path, error: OSError) -> UserError:
    """The `UserError` for a failed write: what, where and the system's own reason."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}",
        "free some space or choose another folder with --out; what was finished before is kept",
    )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, record: object) -> None:
    """Write one record as indented JSON, its fields in the order of their declaration."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def read_json(path: Path, kind: type[T]) -> T:
    """Read one record.

    Raises `UserError` when the file is missing, is not JSON, or does not have the fields of `kind`.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist", "check the folder, or run the command that makes it") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged or of another version: {error}", "make it again") from error


def read_if_present(path: Path, kind: type[T]) -> T | None:
    """Read one record, or `None` when there is none or it was written by another version."""
    try:
        return read_json(path, kind)
    except UserError:
        return None


def append_line(path: Path, record: object) -> None:
    """Add one record to a JSON-lines file and make it durable before returning.

    A line cut short by an earlier kill is closed first, so that it cannot swallow this one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_lines(path: Path, decode: Callable[[bytes], T]) -> list[T]:
    """Read a JSON-lines file, leaving out lines that a kill cut short. A missing file has no lines."""
    records: list[T] = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return records
    for line in lines:
        try:
            records.append(decode(line))
        except msgspec.DecodeError:
            continue
    return records
