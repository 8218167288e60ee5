import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from artifact.precision import Precision
from artifact.records import sha256_file
from errors import UserError
from exporter.derive import Choice, Material, derive
from exporter.save import copy_graph, load_graph, save_graph, weight_bytes
from exporter.sessions import open_file
from tests.cpu import for_exact
from tests.exporter.graphs import as_bytes, product, random, run

X = {"x": random(4, 30, seed=1)}
NAMES = ["model.onnx", "model.onnx_data"]


def _made() -> onnx_ir.Model:
    return product(random(30, 20))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_small_weights_stay_in_the_graph(tmp_path: Path) -> None:
    made = _made()
    assert weight_bytes(made) == 30 * 20 * 4
    assert save_graph(made, tmp_path / "new" / "model.onnx", external_data_bytes=2400) == ("model.onnx",)
    assert _names(tmp_path / "new") == ["model.onnx"]
    assert run(tmp_path / "new" / "model.onnx", X)[0] == pytest.approx(X["x"] @ random(30, 20), rel=1e-4, abs=1e-5)


def test_more_weights_lie_in_exactly_one_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert save_graph(_made(), tmp_path / "first" / "model.onnx", external_data_bytes=2399) == tuple(NAMES)
    folder = (tmp_path / "first").rename(tmp_path / "moved")
    assert _names(folder) == NAMES
    assert (folder / NAMES[1]).stat().st_size >= 2400 > (folder / NAMES[0]).stat().st_size
    assert str(tmp_path).encode() not in (folder / NAMES[0]).read_bytes()
    (expected,) = run(_made(), X)
    for cwd, path in ((tmp_path, folder / "model.onnx"), (folder, Path("model.onnx"))):
        monkeypatch.chdir(cwd)
        assert (run(path, X)[0] == expected).all()
        weight = load_graph(path).graph.initializers["w"].const_value
        assert weight is not None
        assert (weight.numpy() == random(30, 20)).all()


def test_both_files_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_graph(_made(), tmp_path / name / "model.onnx", external_data_bytes=1)
    for name in NAMES:
        assert sha256_file(tmp_path / "one" / name) == sha256_file(tmp_path / "two" / name)


def test_the_data_file_has_the_name_it_is_given(tmp_path: Path) -> None:
    save_graph(_made(), tmp_path / "model.onnx", data_name="model_q4.onnx_data", external_data_bytes=1)
    assert _names(tmp_path) == ["model.onnx", "model_q4.onnx_data"]
    assert b"model_q4.onnx_data" in (tmp_path / "model.onnx").read_bytes()


def test_weights_that_fit_again_leave_no_second_file(tmp_path: Path) -> None:
    save_graph(_made(), tmp_path / "model.onnx", external_data_bytes=1)
    save_graph(_made(), tmp_path / "model.onnx")
    assert _names(tmp_path) == ["model.onnx"]
    assert run(tmp_path / "model.onnx", X)[0].shape == (4, 20)


def test_a_new_data_file_replaces_the_old_one(tmp_path: Path) -> None:
    save_graph(product(random(50, 90)), tmp_path / "model.onnx", external_data_bytes=1)
    save_graph(_made(), tmp_path / "model.onnx", external_data_bytes=1)
    save_graph(_made(), tmp_path / "fresh" / "model.onnx", external_data_bytes=1)
    assert sha256_file(tmp_path / NAMES[1]) == sha256_file(tmp_path / "fresh" / NAMES[1])


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [_remove, _cut])
def test_a_damaged_data_file_is_an_error(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save_graph(_made(), tmp_path / "model.onnx", external_data_bytes=1)
    damage(tmp_path / NAMES[1])
    with pytest.raises(UserError, match=r"onnxruntime cannot run .*model\.onnx"):
        open_file(tmp_path / "model.onnx")


def _full(written: tuple[str, ...]) -> Callable[..., None]:
    def save(graph: onnx_ir.Model, path: Path, **options: Any) -> None:
        names = (path, path.parent / str(options.get("external_data", "nothing")))
        for name, target in zip(("graph", "data"), names, strict=True):
            if name in written:
                target.write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    return save


@pytest.mark.parametrize("written", [(), ("graph",), ("data",), ("graph", "data")])
@pytest.mark.parametrize("limit", [1, 10**9])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: tuple[str, ...], limit: int
) -> None:
    monkeypatch.setattr("onnx_ir.save", _full(written if limit == 1 else written[:1]))
    with pytest.raises(UserError, match=r"cannot write .*model\.onnx: No space left on device"):
        save_graph(_made(), tmp_path / "run" / "model.onnx", external_data_bytes=limit)
    assert [path for path in (tmp_path / "run").iterdir() if path.name != "nothing"] == []


def test_a_full_disk_leaves_the_earlier_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_graph(_made(), tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    monkeypatch.setattr("onnx_ir.save", _full(("graph",)))
    with pytest.raises(UserError, match="No space left"):
        save_graph(_made(), tmp_path / "model.onnx")
    assert _names(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for limit in (1, 10**9):
        with pytest.raises(UserError, match="cannot write"):
            save_graph(_made(), tmp_path / "file" / "model.onnx", external_data_bytes=limit)


@pytest.mark.parametrize("before", [None, 1, 10**9])
@pytest.mark.parametrize("limit", [1, 10**9])
def test_a_copy_is_the_same_files_and_no_others(tmp_path: Path, limit: int, before: int | None) -> None:
    source, target = tmp_path / "source" / "model.onnx", tmp_path / "target" / "model.onnx"
    save_graph(_made(), source, external_data_bytes=limit)
    if before is not None:
        save_graph(product(random(50, 20)), target, external_data_bytes=before)
    copy_graph(source, target)
    assert _names(target.parent) == _names(source.parent) == NAMES[: 2 if limit == 1 else 1]
    for name in _names(source.parent):
        assert (target.parent / name).read_bytes() == (source.parent / name).read_bytes()
    assert (run(target, X)[0] == run(source, X)[0]).all()


@pytest.mark.parametrize(
    "precision",
    [for_exact(Precision.INT8_DYNAMIC), Precision.INT4, Precision.FP16, for_exact(Precision.INT8_STATIC)],
)
def test_a_precision_is_derived_from_a_graph_with_a_data_file_as_from_one_without(
    tmp_path: Path, precision: Precision
) -> None:
    made = {}
    for name, limit in (("inside", 10**9), ("beside", 1)):
        path = tmp_path / name / "model.onnx"
        save_graph(_made(), path, external_data_bytes=limit)
        made[name] = derive(precision, Material(path, (X,), (X,)), Choice(("dense",)))[0]
    assert as_bytes(made["beside"]) == as_bytes(made["inside"])
    save_graph(made["beside"], tmp_path / "out" / "model.onnx", external_data_bytes=1)
    found = run(tmp_path / "out" / "model.onnx", X)[0]
    assert found == pytest.approx(X["x"] @ random(30, 20), abs=2.5)
    assert np.isfinite(found).all()
