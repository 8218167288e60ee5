import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifact.precision import Precision
from errors import UserError
from runtimes.base import Candidate
from runtimes.registry import (
    REFERENCE,
    REGISTRY,
    Entry,
    Source,
    candidates,
    entry,
    open_runtime,
    probe,
    unable,
)
from tests.conftest import ROOT
from tests.fakes import FAKE


@pytest.mark.parametrize("text", ["ort-cpu/int8-dynamic", "torch-cpu/fp32", "later/int4"])
def test_a_candidates_name_is_read_and_written(text: str) -> None:
    found = Candidate.parse(text)
    assert f"{found.runtime}/{found.precision.value}" == found.id == text


@pytest.mark.parametrize("text", ["", "/", "ort-cpu", "ort-cpu/", "/fp32", "ort-cpu/fp33", "ort-cpu/fp32/1", "a/FP32"])
def test_what_is_no_candidate_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a candidate"):
        Candidate.parse(text)


def test_all_pairs_are_candidates_unless_others_are_asked_for() -> None:
    every = candidates(None, None, every=True)
    assert len(every) == len(set(every)) == sum(len(found.precisions) for found in REGISTRY.values())
    assert {found.runtime for found in every} == set(REGISTRY) - {"null", "ort-genai", "llama-cpp"}
    assert unable(None, language=True) == ("ort-tensorrt",)
    assert unable(None, language=False) == ()
    assert unable(("ort-cpu", "llama-cpp"), language=False) == ("llama-cpp",)
    writing = candidates(None, None, every=True, language=True)
    assert {found.runtime for found in writing} == set(REGISTRY) - {"null", "ort-tensorrt"}
    assert REFERENCE in every
    usual = candidates(None, None)
    assert {found.id for found in every} - {found.id for found in usual} == {
        "torch-cpu/int8-dynamic",
        "torch-cpu/int8-static",
    }
    usual_of_decoders = {found.id for found in candidates(None, None, language=True)}
    assert usual_of_decoders >= {
        *("torch-cpu/fp32", "torch-cpu/bf16", "ort-cpu/fp16"),
        *(
            f"{one}/{bits}"
            for one in ("ort-cpu", "openvino-cpu", "ort-genai")
            for bits in ("fp32", "int8-dynamic", "int4")
        ),
    }


@pytest.mark.parametrize(
    ("runtimes", "precisions", "expected"),
    [
        (("ort-cpu",), None, [f"ort-cpu/{name}" for name in ("fp32", "fp16", "int8-dynamic", "int8-static", "int4")]),
        (("ort-cpu", "torch-cpu"), (Precision.FP32,), ["ort-cpu/fp32", "torch-cpu/fp32"]),
        (
            ("torch-cpu", "ort-cpu"),
            (Precision.BF16, Precision.INT8_DYNAMIC),
            ["torch-cpu/bf16", "torch-cpu/int8-dynamic", "ort-cpu/int8-dynamic"],
        ),
        (None, (Precision.TF32,), ["torch-cuda/tf32", "ort-cuda/tf32"]),
    ],
)
def test_asking_narrows_the_candidates(
    runtimes: tuple[str, ...] | None, precisions: tuple[Precision, ...] | None, expected: list[str]
) -> None:
    assert [found.id for found in candidates(runtimes, precisions)] == expected


def test_no_pair_left_is_an_error_that_says_what_runs() -> None:
    with pytest.raises(UserError, match="none of torch-cpu runs at int4") as caught:
        candidates(("torch-cpu",), (Precision.INT4,))
    assert caught.value.hint == "torch-cpu: fp32, bf16, int8-dynamic, int8-static"


def test_an_unknown_runtime_is_named_with_those_there_are() -> None:
    for call in (entry, probe):
        with pytest.raises(UserError, match="no runtime 'abacus'") as caught:
            call("abacus")
        assert all(name in caught.value.hint for name in REGISTRY)
    with pytest.raises(UserError, match="abacus"):
        candidates(("abacus",), None)


def test_one_line_adds_a_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(REGISTRY, "fake", FAKE)
    (tmp_path / "model").write_text("good")
    assert [found.id for found in candidates(("fake",), None)] == ["fake/fp32", "fake/bf16", "fake/int8-dynamic"]
    assert probe("fake").available
    ids = np.array([[2, 3, 4], [5, 6, 0]])
    with open_runtime(Candidate("fake", Precision.FP32), tmp_path / "model", 1) as runtime:
        outputs = runtime.run({"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})
    assert outputs["logits"].tolist() == [[9, 3], [11, 2]]


def test_an_engine_that_is_not_installed_is_unavailable_and_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "later", Entry("runtimes.later", "no_such_engine", "later", Source.ONNX, ()))
    found = probe("later")
    assert not found.available
    assert found.reason == "no_such_engine is not installed"
    assert found.remedy == "pip install 'steelyard[later]'"
    with pytest.raises(UserError, match="later/fp32 needs no_such_engine, which is not installed"):
        open_runtime(Candidate("later", Precision.FP32), Path("model"), 1)


@pytest.mark.parametrize("error", ["ImportError('libfoo.so.9 is missing')", "OSError('libfoo.so.9 is missing')"])
def test_an_engine_that_cannot_be_loaded_is_unavailable_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
) -> None:
    (tmp_path / "broken_engine.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(REGISTRY, "broken", Entry("broken_engine", "broken_engine", "gpu", Source.ONNX, ()))
    found = probe("broken")
    assert not found.available
    assert found.reason
    assert "libfoo.so.9 is missing" in found.reason
    assert found.remedy


def test_the_registry_loads_no_engine_until_it_is_asked() -> None:
    code = """
import sys
from runtimes import registry
registry.candidates(None, None)
engines = {"torch", "onnxruntime", "openvino"}
assert not engines & set(sys.modules)
registry.probe("ort-cpu")
assert engines & set(sys.modules) == {"onnxruntime"}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
