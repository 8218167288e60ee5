from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest

from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from errors import UserError
from runtimes.ort_cpu import EngineRuntime, probe
from tests.runtimes.conftest import BATCH


def install(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a package look installed."""
    info = folder / f"{name.replace('-', '_')}-1.31.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.0\n")
    monkeypatch.syspath_prepend(folder)


def test_two_builds_are_refused(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe().available
    install(tmp_path, "onnxruntime-gpu", monkeypatch)
    found = probe()
    assert not found.available
    assert found.reason == "onnxruntime and onnxruntime-gpu are both installed and overwrite each other"
    assert found.remedy
    assert "pip uninstall" in found.remedy
    with pytest.raises(UserError, match="both installed"), EngineRuntime(graph, Precision.FP32, 1):
        pass


def test_another_package_is_no_second_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime-extensions", monkeypatch)
    assert probe().available


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_session_starts_one_thread_less_than_it_computes_with(graph: Path, threads: int) -> None:
    """The calling thread is the first; so what the operating system counts is what was asked for."""
    process = psutil.Process()
    before = process.num_threads()
    with EngineRuntime(graph, Precision.FP32, threads) as runtime:
        runtime.run(BATCH)
        assert process.num_threads() - before == threads - 1
        assert runtime.info.threads == threads
    assert process.num_threads() == before


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8_DYNAMIC])
def test_every_node_has_its_place(tiny_run: Path, tmp_path: Path, precision: Precision) -> None:
    """Placed are the nodes of the graph after the basic optimisations, which onnxruntime can write down."""
    graph = tiny_run / "variants" / precision.value / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "basic.onnx")
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    nodes = len(onnx.load(tmp_path / "basic.onnx").graph.node)
    with EngineRuntime(graph, precision, 1) as runtime:
        assert runtime.info.nodes_by_provider == {"CPUExecutionProvider": nodes}


def test_the_options_that_ran_are_told(graph: Path) -> None:
    config = SessionConfig(
        graph_optimization_level="basic",
        disabled_optimizers=("A", "B"),
        spinning=False,
        arena=False,
        memory_pattern=False,
    )
    with EngineRuntime(graph, Precision.FP32, 1, config) as runtime:
        level = runtime.session.get_session_options().graph_optimization_level
        assert level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        assert runtime.info.options == {
            "graph_optimization_level": "basic",
            "disabled_optimizers": "A,B",
            "spinning": "false",
            "arena": "false",
            "memory_pattern": "false",
        }
        options = runtime.session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (False, False)


def test_int8_runs_in_int8(tiny_run: Path) -> None:
    """The quantised graph must not have the answers of the plain one."""
    answers = []
    for precision in (Precision.FP32, Precision.INT8_DYNAMIC):
        with EngineRuntime(tiny_run / "variants" / precision.value / "model.onnx", precision, 1) as runtime:
            answers.append(runtime.run(BATCH)["logits"])
            assert runtime.info.dtype == precision.value
    assert not np.allclose(answers[0], answers[1], atol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"half a gra"])
def test_a_graph_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with (
        pytest.raises(UserError, match=r"cannot run .*model\.onnx"),
        EngineRuntime(tmp_path / "model.onnx", Precision.FP32, 1),
    ):
        pass


def test_device_memory_is_not_invented(graph: Path) -> None:
    with EngineRuntime(graph, Precision.FP32, 1) as runtime:
        assert runtime.peak_device_bytes() is None


def test_the_kernels_that_ran_are_those_of_the_graph_that_onnxruntime_made(graph: Path, tmp_path: Path) -> None:
    """Independent of the profile: the nodes of the optimised graph, which ONNX Runtime can write down."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    left_out = list(SessionConfig().disabled_optimizers)
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    with EngineRuntime(graph, Precision.FP32, 1) as runtime:
        executed = runtime.executed(BATCH)
    assert executed
    found: Counter[str] = Counter()
    for name, count in executed.kernels.items():
        found[name.partition(" ")[0]] += count
    assert found == nodes
    assert executed.conversions == nodes["Cast"]
