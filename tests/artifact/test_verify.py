import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.pack import pack
from artifact.precision import Precision
from artifact.predict.card import Card, CardFigure
from artifact.predict.cores import usable_cores
from artifact.predict.predictor import Predictor
from artifact.run_folder import RunFolder
from artifact.verify import verify
from errors import GateFailed, UserError
from tests.artifact.conftest import edit_json, reseal, scale_logits


def figure(workload: str, median_s: float) -> CardFigure:
    return CardFigure(workload=workload, median_s=median_s, ratio=2.0, ratio_low=1.9, ratio_high=2.1)


CARD = Card(
    candidate="ort-cpu/fp32",
    baseline="torch-cpu/fp32",
    figures=(figure("2×16", 0.25), figure("natural ≤ 8", 0.5), figure("3×9", 0.125)),
    accuracy_fraction=0.9,
    reference_accuracy_fraction=0.9,
    agreement_fraction=1.0,
    examples=80,
    cold_start_s=0.2,
    threads=2,
    cpu_model="Ivory 2000",
    cpu_features=("avx2",),
    measured_utc="2026-01-01T00:00:00Z",
)


@pytest.fixture
def measured(tiny_run: Path, tmp_path: Path) -> Path:
    pack(RunFolder(tiny_run), Precision.FP32, tmp_path / "artifact", card=CARD, card_reason=None)
    return tmp_path / "artifact"


def test_an_untouched_artifact_is_confirmed(packed: Path) -> None:
    found = verify(packed, "any")
    files = [path for path in packed.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert (found.files, found.examples, found.threads) == (len(files) - 1, 12, usable_cores())
    assert (found.same_cpu, found.speed) == (None, ())


@pytest.mark.parametrize(("cpu_model", "same"), [("Ivory 2000", True), ("Ivory 3000", False)])
def test_speed_here_stands_beside_the_cards(
    measured: Path, monkeypatch: pytest.MonkeyPatch, cpu_model: str, same: bool
) -> None:
    shapes = []
    run = Predictor.run

    def watched(predictor: Predictor, batch: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        shapes.append({array.shape for array in batch.values()})
        return run(predictor, batch)

    monkeypatch.setattr(Predictor, "run", watched)
    found = verify(measured, cpu_model)
    assert found.same_cpu is same
    assert [(speed.workload, speed.card_s) for speed in found.speed] == [("2×16", 0.25), ("3×9", 0.125)]
    assert all(0 < speed.here_s < 5 for speed in found.speed)
    assert shapes.count({(2, 16)}) == shapes.count({(3, 9)}) >= 15


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is not an artifact") as caught:
        verify(tmp_path, "any")
    assert "steelyard pack" in caught.value.hint


@pytest.mark.parametrize("name", ["steelyard.json", "onnx/model.onnx", "golden.json", "requirements.txt"])
def test_a_file_cut_short_is_not_confirmed(artifact: Path, name: str) -> None:
    os.truncate(artifact / name, 20)
    with pytest.raises(GateFailed, match=f"{artifact / name} (was changed or damaged|cannot be read)"):
        verify(artifact, "any")


@pytest.mark.parametrize("factor", [float("nan"), -1.0])
def test_a_model_with_other_answers_is_not_confirmed(artifact: Path, factor: float) -> None:
    scale_logits(artifact / "onnx" / "model.onnx", factor)
    reseal(artifact)
    with pytest.raises(GateFailed, match="example 0: logits is off"):
        verify(artifact, "any")


@pytest.mark.parametrize(
    "changes", [{"schema_version": 3}, {"labels": 5}, {"card": 5}, {"card": {"candidate": "ort-cpu/fp32"}}]
)
def test_a_manifest_that_is_wrong_is_named(artifact: Path, changes: dict[str, Any]) -> None:
    edit_json(artifact / "steelyard.json", **changes)
    with pytest.raises(GateFailed, match=r"steelyard\.json"):
        verify(artifact, "any")
