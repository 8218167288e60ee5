import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from artifact.records import (
    append_line,
    fingerprint,
    read_if_present,
    read_json,
    read_lines,
    replacing,
    sha256_bytes,
    sha256_file,
    sha256_files,
    write_bytes,
    write_json,
)
from errors import UserError
from tests.conftest import ROOT


class Record(msgspec.Struct, frozen=True):
    name: str
    seconds: float | None = None


decode = msgspec.json.Decoder(Record).decode


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_is_hashlibs(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a.bin").write_bytes(data)
    assert sha256_bytes(data) == sha256_file(tmp_path / "a.bin") == hashlib.sha256(data).hexdigest()


def test_sha256_of_files_knows_names_and_bytes_but_no_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    before = sha256_files([one, two])
    assert sha256_files([two, one]) == before
    two.write_bytes(b"3")
    changed = sha256_files([one, two])
    two.write_bytes(b"2")
    assert sha256_files([one, two.rename(tmp_path / "three")]) not in (before, changed)
    assert before != changed


def test_fingerprint_depends_on_values_and_not_on_their_order() -> None:
    parts = {"a": 1, "b": {"x": [1, 2], "y": 2.5}}
    assert fingerprint({"b": {"y": 2.5, "x": [1, 2]}, "a": 1}) == fingerprint(parts)
    assert fingerprint(parts | {"a": 2}) != fingerprint(parts)
    assert fingerprint(parts | {"b": {"x": [2, 1], "y": 2.5}}) != fingerprint(parts)


def test_a_written_record_is_plain_json_in_the_order_of_its_fields(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "record.json", Record("é", 0.5))
    text = (tmp_path / "deep" / "record.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "é", "seconds": 0.5}
    assert text.index("name") < text.index("seconds")
    assert text.endswith("}\n")
    assert names(tmp_path / "deep") == ["record.json"]


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        write_bytes(tmp_path / "file", b"x")
        os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_when_writing_is_broken_off(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")

    def write() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*taken"):
        write_bytes(tmp_path / "taken", b"x")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/inside"):
        write_bytes(tmp_path / "file" / "inside", b"x")
    assert names(tmp_path) == ["file", "taken"]


@pytest.mark.parametrize("write", ["write_bytes(path, bytes(9000))", "append_line(path, 'x' * 9000)"])
def test_a_full_disk_is_told_and_keeps_what_was_there(tmp_path: Path, write: str) -> None:
    path = tmp_path / "file"
    path.write_text('"old"\n')
    program = f"""
import resource
from pathlib import Path
from artifact.records import append_line, write_bytes
from errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path({str(path)!r})
try:
    {write}
except UserError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"cannot write {path}: File too large\n", done.stderr
    assert path.read_text().startswith('"old"\n')
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b'{"name": "a"', "damaged or of another version"),
        (b'{"name": 1}', r"damaged or of another version: .*\$.name"),
        (b'{"seconds": 1}', "damaged or of another version: .*`name`"),
        (b'{"name": "\xff"}', "damaged or of another version"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"record.json .*{message}|record.json is {message}"):
        read_json(path, Record)
    assert read_if_present(path, Record) is None


def test_a_folder_in_place_of_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        read_json(tmp_path, Record)


def test_read_if_present_reads(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"name": "a", "seconds": 2, "later": true}')
    assert read_if_present(tmp_path / "record.json", Record) == Record("a", 2)


def test_appended_lines_are_json_lines(tmp_path: Path) -> None:
    for name in ("a\nb", "é"):
        append_line(tmp_path / "new" / "log.jsonl", Record(name))
    lines = (tmp_path / "new" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a\nb", "é"]


@pytest.mark.parametrize("cut", range(1, len('{"name":"né👩"}'.encode())))
def test_a_line_cut_anywhere_swallows_neither_neighbour(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"name":"first"}\n' + '{"name":"né👩"}'.encode()[:cut])
    assert read_lines(path, decode) == [Record("first")]
    append_line(path, Record("last"))
    assert read_lines(path, decode) == [Record("first"), Record("last")]


def test_a_missing_log_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "log.jsonl", decode) == []
