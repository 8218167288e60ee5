from pathlib import Path

import onnx_ir
import pytest

from exporter.half import to_half
from exporter.integer import int8_dynamic
from exporter.save import save_graph
from exporter.support import support
from tests.exporter.graphs import BF16_TYPE, FP16_TYPE, graph, node, product, random

X = {"x": random(4, 30, seed=1)}


def _saved(made: onnx_ir.Model, folder: Path) -> Path:
    save_graph(made, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_single_half_product_says_so_too(tmp_path: Path) -> None:
    """It has as many casts as before, and is computed in fp32 all the same."""
    cpu, _ = support(_saved(to_half(product(random(30, 20)), FP16_TYPE, ()), tmp_path), X)
    assert cpu.reason == "in fp32, between 1 casts: no kernels of its own"


@pytest.mark.parametrize("quantised", [True, False])
def test_what_runs_says_nothing_more(tmp_path: Path, *, quantised: bool) -> None:
    made = product(random(30, 20))
    cpu, gpu = support(_saved(int8_dynamic(made, {"dense"}) if quantised else made, tmp_path), X)
    assert (cpu.engine, cpu.runs, cpu.reason) == ("ort-cpu", True, None)
    assert (gpu.engine, gpu.runs) == ("ort-cuda", None)


def test_bf16_does_not_run_on_a_cpu_and_the_reason_names_no_file(tmp_path: Path) -> None:
    cpu, _ = support(_saved(to_half(product(random(30, 20)), BF16_TYPE, ()), tmp_path), X)
    assert cpu.runs is False
    assert cpu.reason is not None
    assert cpu.reason.startswith("NOT_IMPLEMENTED: Could not find an implementation for MatMul")
    assert str(tmp_path) not in cpu.reason
    assert "model.onnx" not in cpu.reason


def test_a_file_that_is_none_says_so_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph at all")
    cpu, _ = support(tmp_path / "model.onnx", X)
    assert cpu.runs is False
    assert cpu.reason is not None
    assert cpu.reason.startswith("INVALID_PROTOBUF: ")
    assert str(tmp_path) not in cpu.reason


def test_a_batch_that_does_not_fit_says_so(tmp_path: Path) -> None:
    cpu, _ = support(_saved(product(random(30, 20)), tmp_path), {"x": random(4, 29)})
    assert cpu.runs is False
    assert cpu.reason is not None
    assert cpu.reason.startswith("INVALID_ARGUMENT: ")


def test_the_casts_around_half_kernels_are_counted(tmp_path: Path) -> None:
    """ONNX Runtime has no fp16 kernel for these on a CPU: it widens both weights, and drops the cast of the input."""
    weights = {"w": random(30, 30), "v": random(30, 20)}
    nodes = [
        node("MatMul", ["x", "w"], "h", "first"),
        node("Softmax", ["h"], "s", "soft"),
        node("MatMul", ["s", "v"], "y"),
    ]
    made = to_half(graph(nodes, {"x": ("n", 30)}, {"y": ("n", 20)}, weights), FP16_TYPE, ())
    cpu, _ = support(_saved(made, tmp_path), X)
    assert cpu.runs is True
    assert cpu.reason == "in fp32, between 2 casts: no kernels of its own"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
