"""What a stranger may put into an artifact: each is refused in one sentence, before anything runs."""

import gzip
import io
import json
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from artifact.predict.golden import Sampled
from artifact.predict.graph_file import check_graph
from artifact.predict.images import ImageSettings, read_picture
from artifact.predict.patterns import danger
from artifact.predict.predictor import Predictor
from artifact.predict.sounds import SoundSettings, read_recording
from artifact.predict.tokens import TextLimits, open_tokenizer
from artifact.predict.typed import build, read_json
from artifact.verify import verify
from errors import GateFailed, UserError
from tests.artifact.conftest import edit_json, reseal
from tests.artifact.damage import mutated

PICTURES = ImageSettings(
    channels=3, resize="exact", size=(8, 8), resample=2, crop=(), scale=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
)
SECONDS = 10
"""Every refusal comes within this time; most take milliseconds."""


def refusal(artifact: Path) -> str:
    """What `verify` says, sealed as one who means harm would seal it."""
    began = time.monotonic()
    with pytest.raises((GateFailed, UserError)) as caught:
        verify(artifact, "any")
    assert time.monotonic() - began < SECONDS
    return str(caught.value)


# Graphs


def outside(graph: Path, location: str, **entries: str) -> None:
    """Let a weight of a graph lie in another file."""
    model = onnx.load(graph)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    graph.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "location", ["../../secret", "/etc/passwd", "sub/weights", "..\\weights", "", "other.onnx_data", "C:\\weights"]
)
def test_weights_outside_of_the_folder_are_refused(artifact: Path, location: str) -> None:
    (artifact.parent / "secret").write_bytes(b"x" * 100_000)
    outside(artifact / "onnx" / "model.onnx", location)
    reseal(artifact)
    assert "which was not packed with it" in refusal(artifact)


def test_weights_through_a_link_are_refused(artifact: Path) -> None:
    (artifact.parent / "secret").write_bytes(b"x" * 1_000_000)
    (artifact / "onnx" / "model.onnx_data").symlink_to(artifact.parent / "secret")
    outside(artifact / "onnx" / "model.onnx", "model.onnx_data")
    reseal(artifact)
    assert "link to a file outside" in refusal(artifact)


def test_weights_beyond_the_end_of_their_file_are_refused(artifact: Path) -> None:
    (artifact / "onnx" / "model.onnx_data").write_bytes(b"x" * 10)
    outside(artifact / "onnx" / "model.onnx", "model.onnx_data", offset="8", length="4096")
    reseal(artifact)
    assert "beyond the end of model.onnx_data" in refusal(artifact)


def test_weights_of_an_attribute_and_of_an_inner_graph_are_seen(tmp_path: Path) -> None:
    hidden = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../secret")
    value = helper.make_node("Constant", [], ["y"], value=hidden)
    branch = helper.make_graph([value], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    graph = helper.make_graph([node], "graph", inputs, outputs)
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(GateFailed, match="secret"):
        check_graph(tmp_path / "m.onnx")


@pytest.mark.parametrize("where", ["node", "opset", "function"])
def test_custom_operators_are_refused(artifact: Path, where: str) -> None:
    path = artifact / "onnx" / "model.onnx"
    model = onnx.load(path)
    if where == "node":
        model.graph.node[0].domain = "evil.ops"
    elif where == "opset":
        model.opset_import.add(domain="evil.ops", version=1)
    else:
        model.functions.add(name="f", domain="evil.ops")
    path.write_bytes(model.SerializeToString())
    reseal(artifact)
    assert "custom operators ('evil.ops')" in refusal(artifact)


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "a text": lambda data: b"not a model",
    "a third": lambda data: data[: len(data) // 3],
    "all but a byte": lambda data: data[:-1],
    "zeros": lambda data: bytes(10_000),
    "a pickle": lambda data: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.",
    "a zip": lambda data: zipped(b"x" * 1000),
    "a promise of 8 EB": lambda data: b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "deep graphs": lambda data: nested(2000),
}


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", data)
    return file.getvalue()


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""

    def field(number: int, data: bytes) -> bytes:
        size, length = len(data), b""
        while size >= 0x80:
            length, size = length + bytes((size & 0x7F | 0x80,)), size >> 7
        return bytes((number << 3 | 2,)) + length + bytes((size,)) + data

    data = b""
    for _ in range(depth):
        data = field(1, field(5, field(6, data)))
    return field(7, data) + field(8, b"\x10\x14")


@pytest.mark.parametrize("make", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_whole_graph_is_refused(artifact: Path, make: Callable[[bytes], bytes]) -> None:
    path = artifact / "onnx" / "model.onnx"
    path.write_bytes(make(path.read_bytes()))
    reseal(artifact)
    assert "is not a whole ONNX file" in refusal(artifact) or "cannot be read" in refusal(artifact)


def test_a_file_of_another_size_is_not_even_hashed(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    with (artifact / "onnx" / "model.onnx").open("r+b") as file:
        file.truncate(2**40)  # a hole of a terabyte

    def fail(*_: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert "1,099,511,627,776 bytes, expected" in refusal(artifact)


def test_a_field_number_that_readers_understand_differently_is_refused(artifact: Path) -> None:
    path = artifact / "onnx" / "model.onnx"
    data = path.read_bytes()
    tag = (8 << 3 | 2) + 2**32  # an opset to a reader that keeps 32 bits, and nothing known to one that keeps all
    hidden = b"".join(bytes((tag >> shift & 0x7F | (0x80 if shift < 28 else 0),)) for shift in range(0, 35, 7))
    path.write_bytes(data + hidden + b"\x0a\x0a\x08evil.ops")
    reseal(artifact)
    assert "is not a whole ONNX file" in refusal(artifact)


# Pictures and recordings


def test_pictures_that_unfold_are_refused() -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
    with pytest.raises(UserError, match=r"60,000 × 60,000 pixels|not a picture"):
        read_picture(bomb, PICTURES)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"RIFF1234WEBP"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="not a picture"):
        read_picture(data, PICTURES)


@pytest.mark.parametrize(
    "changes", [{"crop": (16_384, 16_384)}, {"size": (0, 5)}, {"std": (0.0, 1.0, 1.0)}, {"resample": 9}]
)
def test_settings_of_pictures_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"picture|pixels|std"):
        replace(PICTURES, **changes)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"not a recording"])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"WAV|soundfile"):
        read_recording(data, SoundSettings(features="waveform", rate_hz=16_000, normalize=False))


def test_a_recording_that_promises_too_much_is_refused() -> None:
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", 2**32 - 2
    )
    with pytest.raises(UserError):
        read_recording(header, SoundSettings(features="waveform", rate_hz=16_000, normalize=False))


# Archives


@pytest.mark.parametrize("name", ["artifact.zip", "artifact.tar.gz"])
def test_an_archive_is_not_unpacked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(zipped(bytes(10_000_000)) if name.endswith("zip") else gzip.compress(bytes(10_000_000)))
    assert "is a file" in refusal(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["golden.json", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("pack", [zipped, gzip.compress])
def test_a_bomb_in_place_of_a_file_is_not_unpacked(artifact: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    (artifact / name).write_bytes(pack(bytes(50_000_000)))
    reseal(artifact)
    assert name in refusal(artifact)


# Manifests and golden examples


def test_a_field_that_stands_there_twice_is_refused(artifact: Path) -> None:
    path = artifact / "steelyard.json"
    path.write_text('{"schema_version": 2, ' + path.read_text().lstrip("{ \n"))
    assert "'schema_version' stands there twice" in refusal(artifact)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "9" * 5000, "1" * 18])
def test_huge_numbers_and_no_numbers_are_refused(artifact: Path, number: str) -> None:
    path = artifact / "steelyard.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "opset": "HERE"}).replace('"HERE"', number))
    assert "steelyard.json" in refusal(artifact)


def test_a_manifest_without_end_is_refused(artifact: Path) -> None:
    (artifact / "steelyard.json").write_text("[" * 1_000_000)
    assert "cannot be read" in refusal(artifact)
    with (artifact / "steelyard.json").open("r+b") as file:
        file.truncate(2**36)
    assert "more than the" in refusal(artifact)


def test_a_manifest_that_is_no_file_is_refused(artifact: Path) -> None:
    (artifact / "steelyard.json").unlink()
    (artifact / "steelyard.json").symlink_to("/dev/zero")
    with pytest.raises(GateFailed, match="is a link"):
        Predictor.open(artifact)
    (artifact / "steelyard.json").unlink()
    os.mkfifo(artifact / "steelyard.json")
    with pytest.raises(GateFailed, match="is no file"):
        Predictor.open(artifact)


@pytest.mark.parametrize(
    "example",
    [
        {"shape": [2], "values": [1.0]},
        {"shape": [-1], "values": []},
        {"shape": [10**12], "values": []},
        {"shape": [2], "values": [1, 2], "at": [0, 7]},
        {"shape": [2], "values": [1, 2], "at": [-1, 0]},
        {"shape": [2], "values": ["1", "2"]},
        {"shape": "2", "values": []},
        {"values": []},
    ],
)
def test_arrays_that_are_none_are_refused(example: dict[str, Any]) -> None:
    with pytest.raises(GateFailed, match="golden"):
        build(Sampled, example, "golden")


@pytest.mark.parametrize("file", [None, "not base64!", "AAAA"])
def test_a_golden_file_that_is_none_is_refused(artifact: Path, file: str | None) -> None:
    golden = json.loads((artifact / "golden.json").read_text())
    golden["examples"][0] |= {"text": None, "file": file}
    edit_json(artifact / "golden.json", **golden)
    reseal(artifact)
    assert refusal(artifact)


def test_a_golden_file_that_confirms_anything_is_noticed(artifact: Path) -> None:
    golden = json.loads((artifact / "golden.json").read_text())
    golden["examples"] = [example | {"inputs": {}, "outputs": {}} for example in golden["examples"]]
    edit_json(artifact / "golden.json", **golden)
    reseal(artifact)
    assert "golden.json has no" in refusal(artifact)


# Tokenizers

PUBLISHED = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "GPT-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "CLIP": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "T5": r" {2,}",
    "DeepSeek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@pytest.mark.parametrize("pattern", PUBLISHED.values(), ids=PUBLISHED)
def test_patterns_of_published_tokenizers_pass(pattern: str) -> None:
    assert danger(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a*)*",
        "(?:a|b*)+",
        "((a{2,}))*",
        "(a|(b+c))+?",
        "(?:x(?:y*)z)*",
        "(?:a|a)*b",
        "(?:aa?)*b",
        "(?:a?){50}a{50}",
        "a+{2,}b",
        "a{2,}+b",
        "a{1,50}{1,50}b",
        "(?#:[)(a+)+$(?#])",
        r"\c[(a+)+$\c]",
        "(?x)[ # ](a+)+",
        "(?~a)",
        "(?(1)a|b)",
        "(*FAIL)",
        "a{99999999}",
        r"(a)\1",
        r"(?<n>a)\k<n>",
        r"\g<0>",
        "a*a*a*b",
        "(?:a{1000}){1000}",
        "(a",
        "a)",
        "[]a]",
        "[a",
        "+",
        "x" * 30_000,
        "(" * 30 + ")" * 30,
        "([^b]+)+",
        r"(\p{L}+ ?)+",
    ],
)
def test_patterns_that_could_run_for_years_are_refused(artifact: Path, pattern: str) -> None:
    assert danger(pattern) is not None
    tokenizer = json.loads((artifact / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split]}
    edit_json(artifact / "tokenizer.json", **tokenizer)
    reseal(artifact)
    assert "pattern that could take very long" in refusal(artifact)


@pytest.mark.parametrize(
    "pattern", [r"\s+", "[[:alpha:]]+", r"[^\[\]]{1,3}", "(?<=a)b(?!c)", "(?<word>ab)?", "{", "a{,3}", "(?i:x|y)"]
)
def test_plain_patterns_pass(pattern: str) -> None:
    assert danger(pattern) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": null}', "[" * 100_000, '{"version": "1.0"}', "null"])
def test_what_is_no_tokenizer_is_refused(content: str) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        open_tokenizer(content)


# Every bit, and any bytes at all


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "golden.json", "config.json", "predict.py"])
def test_one_flipped_bit_anywhere_is_found(artifact: Path, name: str) -> None:
    path = artifact / name
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for place in {0, len(data) - 1, *random.integers(0, len(data), 12).tolist()}:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        assert f"{path} was changed or damaged" in refusal(artifact)
    path.write_bytes(data)
    verify(artifact, "any")


@pytest.fixture(scope="module")
def files(packed: Path) -> dict[str, bytes]:
    return {name: (packed / name).read_bytes() for name in ("steelyard.json", "golden.json", "onnx/model.onnx")}


def refused_with(where: str, read: Callable[[], object]) -> None:
    """Reading may succeed; if it does not, the refusal says where."""
    try:
        read()
    except GateFailed as error:
        if where not in error.message:
            raise AssertionError(error.message) from error


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_manifests_and_examples_never_crash(files: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    from artifact.predict.golden import read_golden
    from artifact.predict.manifest import read_manifest

    readers: dict[str, Callable[[Path], object]] = {"steelyard.json": read_manifest, "golden.json": read_golden}
    for name, reader in readers.items():
        (tmp_path / name).write_bytes(mutated(files[name], np.random.default_rng(seed)))
        refused_with(name, partial(reader, tmp_path))


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_graphs_never_crash(files: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    path, graph = tmp_path / "model.onnx", files["onnx/model.onnx"][:5000] + files["onnx/model.onnx"][-20_000:]
    path.write_bytes(mutated(graph, np.random.default_rng(seed)))
    refused_with(str(path), partial(check_graph, path))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for read in (lambda: read_json(path, 1000), lambda: check_graph(path)):
        refused_with(str(path), read)


def test_a_folder_that_only_looks_like_one_is_refused(tmp_path: Path, packed: Path) -> None:
    shutil.copytree(packed, tmp_path / "artifact")
    shutil.rmtree(tmp_path / "artifact" / "onnx")
    (tmp_path / "artifact" / "onnx").symlink_to(packed / "onnx")
    with pytest.raises(GateFailed, match="link to a file outside"):
        Predictor.open(tmp_path / "artifact")


@pytest.mark.parametrize("limits", [{"max_length_tokens": 0}, {"max_length_tokens": 10**9}, {"pad_id": -1}])
def test_limits_that_cannot_be_are_refused(limits: dict[str, int]) -> None:
    usual = {"max_length_tokens": 5, "pad_id": 0, "pad_type_id": 0, "pad_left": False}
    with pytest.raises(GateFailed, match="limits"):
        build(TextLimits, usual | limits, "limits")
