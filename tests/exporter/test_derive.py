import hashlib
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from errors import UserError
from exporter.derive import int8_dynamic


def _path(run: Path, precision: str) -> Path:
    return run / "variants" / precision / "model.onnx"


@pytest.fixture(scope="module")
def int8(tiny_run: Path) -> onnx.ModelProto:
    return onnx.load(_path(tiny_run, "int8-dynamic"))


def test_matrices_are_signed_bytes_with_a_scale_for_each_output(int8: onnx.ModelProto) -> None:
    tensors = {tensor.name: tensor for tensor in int8.graph.initializer}
    products = [node for node in int8.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 2 * 6 + 2  # query, key, value, output and two of the feed-forward; pooler and classifier
    for node in products:
        weight = tensors[node.input[1]]
        scale = tensors[node.input[1].replace("_quantized", "_scale")]
        assert weight.data_type == TensorProto.INT8
        assert list(scale.dims) == [weight.dims[-1]]


def test_embeddings_are_bytes_with_one_scale(int8: onnx.ModelProto) -> None:
    tables = [tensor for tensor in int8.graph.initializer if tensor.name.endswith("embeddings.weight_quantized")]
    scales = [tensor for tensor in int8.graph.initializer if tensor.name.endswith("embeddings.weight_scale")]
    assert [tensor.data_type for tensor in tables] == [TensorProto.UINT8] * 3
    assert [list(tensor.dims) for tensor in scales] == [[]] * 3


def test_quantised_weights_are_the_fp32_ones_within_half_a_step(tiny_run: Path, int8: onnx.ModelProto) -> None:
    original = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(_path(tiny_run, "fp32")).graph.initializer
    }
    small = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    names = [name for name, array in small.items() if array.dtype == np.int8 and array.ndim == 2]
    assert names
    for name in names:
        stem = name.removesuffix("_quantized")
        source = original[stem] if stem in original else original[stem.removesuffix("_Transposed")].T
        restored = small[name].astype(np.float64) * small[f"{stem}_scale"]
        assert (np.abs(restored - source) <= 0.501 * small[f"{stem}_scale"]).all()


def test_no_matrix_stays_in_fp32(int8: onnx.ModelProto) -> None:
    left = [tensor.name for tensor in int8.graph.initializer if tensor.data_type == 1 and len(tensor.dims) == 2]
    assert left == []


def test_deriving_leaves_the_source_and_is_repeatable(tiny_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "fp32.onnx"
    source.write_bytes(_path(tiny_run, "fp32").read_bytes())
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    int8_dynamic(source, tmp_path / "int8.onnx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before
    assert (tmp_path / "int8.onnx").read_bytes() == _path(tiny_run, "int8-dynamic").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"fp32.onnx", "int8.onnx"}


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_the_log_level_is_given_back(
    tiny_run: Path, tmp_path: Path, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level):
        int8_dynamic(_path(tiny_run, "fp32"), tmp_path / "int8.onnx")
        assert logging.getLogger().level == level


def test_a_failed_write_is_told_and_leaves_nothing(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", full)
    with pytest.raises(UserError, match=r"cannot write .*int8\.onnx: No space left on device"):
        int8_dynamic(_path(tiny_run, "fp32"), tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())
