import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest

from artifact.precision import Precision
from errors import UserError
from runtimes.openvino_cpu import EngineRuntime, probe
from runtimes.openvino_model import NO_BF16
from runtimes.options import OpenVinoOptions
from runtimes.registry import entry, is_calibrated, known_candidate, open_runtime
from tests.runtimes.conftest import BATCH


class FakeCore:
    """A plugin with these capabilities whose compiled models answer with other settings than were asked for."""

    available_devices: list[str] = ["CPU"]  # noqa: RUF012

    def __init__(self, capabilities: list[str], **answers: Any) -> None:
        self._capabilities, self._answers = capabilities, answers

    def get_property(self, device: str, name: str) -> list[str]:
        return self._capabilities

    def add_extension(self, extension: object) -> None:
        pass

    def read_model(self, path: Path) -> Any:
        return SimpleNamespace(get_ops=list)

    def compile_model(self, model: Any, device: str, asked: dict[str, Any]) -> Any:
        answers = {str(name): value for name, value in asked.items()} | self._answers
        return SimpleNamespace(get_property=lambda name: answers[str(name)], inputs=[], outputs=[])


def test_openvino_is_there() -> None:
    found = probe()
    assert (found.available, found.device) == (True, "cpu")
    assert found.engine_version
    assert openvino.get_version().startswith(found.engine_version)


def test_without_its_plugin_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    core = FakeCore([])
    core.available_devices = []
    monkeypatch.setattr(openvino, "Core", lambda: core)
    found = probe()
    assert not found.available
    assert found.reason
    assert "no CPU plugin" in found.reason


def test_fp32_is_not_quietly_bf16(graph: Path) -> None:
    """OpenVINO's own default on a CPU with bf16 would be bf16."""
    with EngineRuntime(graph, Precision.FP32, 2) as runtime:
        assert runtime.info.options == {
            "hint": "latency",
            "bf16": "false",
            "nncf": "false",
            "inference_precision": "f32",
            "streams": "1",
        }
        assert runtime.info.threads == 2


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_the_hint_that_was_asked_for_is_the_one_that_ran(graph: Path, hint: Any) -> None:
    with EngineRuntime(graph, Precision.FP32, 1, OpenVinoOptions(hint=hint)) as runtime:
        assert runtime.info.options["hint"] == hint
        assert runtime.compiled.get_property("PERFORMANCE_HINT").lower() == hint


def test_a_cpu_without_bf16_is_refused(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "Core", lambda: FakeCore(["FP32", "INT8"]))
    runtime = EngineRuntime(graph, Precision.BF16, 1)
    with pytest.raises(UserError, match="does not compute in bf16 on this CPU"), runtime:
        pass
    found = probe()
    assert found.available
    lacking = [found.lack_of(known_candidate(f"openvino-cpu/{name}")) for name in ("bf16", "int4+bf16", "fp32")]
    assert [lack.reason if lack else None for lack in lacking] == [NO_BF16, NO_BF16, None]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"INFERENCE_PRECISION_HINT": openvino.Type.bf16}, "asked OpenVINO for number type"),
        ({"INFERENCE_NUM_THREADS": 16}, "asked OpenVINO for threads 1, got 16"),
    ],
)
def test_settings_that_did_not_take_are_refused(
    graph: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(openvino, "Core", lambda: FakeCore(["FP32"], **answers))
    runtime = EngineRuntime(graph, Precision.FP32, 1)
    with pytest.raises(UserError, match=message), runtime:
        pass


@pytest.mark.parametrize("content", [None, b"", b"half a gra"])
def test_a_graph_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    runtime = EngineRuntime(tmp_path / "model.onnx", Precision.FP32, 1)
    with pytest.raises(UserError, match=r"OpenVINO cannot run .*model\.onnx"), runtime:
        pass


def test_fp32_answers_as_onnx_runtime_does(graph: Path) -> None:
    from runtimes.ort_cpu import EngineRuntime as OrtRuntime

    with EngineRuntime(graph, Precision.FP32, 1) as ours, OrtRuntime(graph, Precision.FP32, 1) as theirs:
        np.testing.assert_allclose(ours.run(BATCH)["logits"], theirs.run(BATCH)["logits"], atol=1e-4)


OTHER = {**BATCH, "input_ids": BATCH["input_ids"] + np.arange(8) * 5}
NNCF = OpenVinoOptions(nncf=True)


def test_openvinos_own_int8_computes_in_int8_over_the_ranges_of_the_calibration(graph: Path) -> None:
    answers = []
    for calibration in ([BATCH], [OTHER]):
        with EngineRuntime(graph, Precision.INT8_STATIC, 1, NNCF, calibration) as runtime:
            executed = runtime.executed(BATCH)
            assert executed
            assert any(name.startswith("FullyConnected") and name.endswith("_i8") for name in executed.kernels)
            answers.append(runtime.run(OTHER)["logits"])
    assert not np.array_equal(answers[0], answers[1])
    assert os.environ["NNCF_CI"]  # what keeps it from reporting over the network


def test_openvinos_own_int8_is_nothing_else(graph: Path) -> None:
    with pytest.raises(UserError, match=r"\+nncf makes int8-static, and int4 was asked for"):
        EngineRuntime(graph, Precision.INT4, 1, NNCF)


def test_openvinos_own_int8_loads_the_fp32_file_and_needs_training_examples(graph: Path) -> None:
    candidate = known_candidate("openvino-cpu/int8-static+bf16+nncf")
    assert entry("openvino-cpu").graph(candidate) is Precision.FP32
    assert is_calibrated(candidate)
    assert not is_calibrated(known_candidate("openvino-cpu/int8-static+bf16"))
    with pytest.raises(UserError, match="needs training examples"):
        open_runtime(candidate, graph, 1)


def test_without_nncf_only_that_option_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.openvino_cpu.find_spec", lambda name: None)
    found = probe()
    lack = found.lack_of(known_candidate("openvino-cpu/int8-static+nncf"))
    assert lack
    assert (lack.reason, lack.remedy) == ("nncf is not installed", "pip install 'steelyard[nncf]'")
    assert not found.lack_of(known_candidate("openvino-cpu/int8-static"))


def test_what_nncf_cannot_quantise_is_said_as_its_failure(graph: Path) -> None:
    wrong = {**BATCH, "input_ids": np.full((2, 900), 7)}
    with (
        pytest.raises(UserError, match="NNCF cannot quantise this graph: ") as caught,
        EngineRuntime(graph, Precision.INT8_STATIC, 1, NNCF, [wrong]),
    ):
        pass
    assert "\n" not in caught.value.message
    assert caught.value.hint == "leave +nncf out"
