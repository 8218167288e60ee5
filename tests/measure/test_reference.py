from pathlib import Path

import numpy as np
import pytest

from measure.reference import Reference, load_reference, save_reference

REFERENCE = Reference("torch-cpu/fp32", np.array([[0.1, -2.5], [3e38, 1e-45]], dtype=np.float32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_reference(tmp_path / "reference.npz", REFERENCE, "mark")
    return tmp_path / "reference.npz"


def test_what_is_saved_comes_back_bit_by_bit(path: Path) -> None:
    found = load_reference(path, "mark")
    assert found
    assert found.candidate == REFERENCE.candidate
    assert found.answers.dtype == np.float32
    assert found.answers.tobytes() == REFERENCE.answers.tobytes()


def test_answers_to_other_texts_are_not_used(path: Path) -> None:
    assert load_reference(path, "another mark") is None


def test_no_file_is_no_reference(tmp_path: Path) -> None:
    assert load_reference(tmp_path / "reference.npz", "mark") is None


def test_a_file_cut_short_anywhere_is_no_reference(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert load_reference(path, "mark") is None, f"{size} of {len(whole)} bytes"


@pytest.mark.parametrize("content", [b"text", b"\x00" * 100])
def test_another_file_is_no_reference(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert load_reference(path, "mark") is None


def test_arrays_without_a_header_are_no_reference(path: Path) -> None:
    np.savez(path, answers=REFERENCE.answers)
    assert load_reference(path, "mark") is None


def test_a_new_reference_replaces_the_old_one(path: Path) -> None:
    save_reference(path, Reference("ort-cpu/fp32", np.zeros((1, 2), dtype=np.float32)), "mark")
    found = load_reference(path, "mark")
    assert found
    assert (found.candidate, found.answers.shape) == ("ort-cpu/fp32", (1, 2))
    assert [file.name for file in path.parent.iterdir()] == ["reference.npz"]
