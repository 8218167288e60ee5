"""Models that see, compared by the command: right is what PyTorch says of pictures that transformers prepared."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ViTImageProcessor

from artifact.pictures import Pictures
from artifact.precision import Precision
from artifact.predict.images import ImageSettings
from artifact.run_folder import RunFolder
from errors import UserError
from exporter.export import export
from exporter.request import Request, Source
from measure.compare import find_runnable
from measure.source import find_models
from measure.workload import Inputs, build_picture_inputs, load_inputs, save_inputs
from models.rows import Columns
from runtimes.base import check_batch
from runtimes.options import TorchOptions
from runtimes.registry import known_candidate
from runtimes.torch_cpu import EngineRuntime
from tests.conftest import within
from tests.models.test_every_task import digits, learn_from, tiny_resnet
from tests.test_cli import fails

__all__ = ["digits", "tiny_resnet"]
pytestmark = pytest.mark.slow
CANDIDATES = ("torch-cpu/fp32", "torch-cpu/bf16", "ort-cpu/fp32", "openvino-cpu/fp32")


@pytest.fixture(scope="module")
def seeing(tiny_resnet: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model reads digits, exported and compared where each fifth label is wrong; what that printed is kept
    beside it."""
    out = tmp_path_factory.mktemp("seeing") / "run"
    learn_from(tiny_resnet, digits, out, config={"epochs": 3, "learning_rate": 5e-3})
    run = RunFolder(out)
    export(Request(run.own_checkpoint, out, (Precision.FP32,), data=Source(run.evaluation_data, Columns())))
    with (out / "judged.csv").open("w", newline="") as file:
        wrong = ((number % 5 == 0, row) for number, row in enumerate(rows_of(out, "data/evaluation.csv")))
        judged = ((row["image"], (int(row["label"]) + off) % 4) for off, row in wrong)
        csv.writer(file).writerows([("image", "label"), *judged])
    asked = ("--data", out / "judged.csv", "--batch-sizes", "1,4", "--budget", "smoke")
    done = within("compare", out, "--candidates", ",".join(CANDIDATES), *asked)
    assert done.returncode == 0, done.stderr
    (out / "told.txt").write_text(done.stdout)
    return out


def rows_of(run: Path, name: str = "judged.csv") -> list[dict[str, str]]:
    with (run / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_candidate_is_right_where_pytorch_is(seeing: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(seeing / "checkpoint").eval()
    processor = ViTImageProcessor.from_pretrained(seeing / "checkpoint")
    rows = rows_of(seeing)
    pixels = processor([Image.open(row["image"]) for row in rows], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = model(pixel_values=pixels).logits
    said = [model.config.id2label[int(place)] for place in logits.argmax(dim=-1)]
    right = np.mean([word == row["label"] for word, row in zip(said, rows, strict=True)])
    assert 0.5 < right < 1
    verdict = json.loads((seeing / "verdict.json").read_text())
    measured = {row["name"]: row for row in verdict["rows"] if row["measured"] and row["quality"]}
    assert set(measured) == set(CANDIDATES)
    for name in ("torch-cpu/fp32", "ort-cpu/fp32", "openvino-cpu/fp32"):
        quality = measured[name]["quality"]
        assert (quality["examples"], quality["agreement_fraction"]) == (60, 1)
        assert quality["accuracy_fraction"] == pytest.approx(right)
    assert {item["workload"] for item in measured["ort-cpu/fp32"]["workloads"]} == {"1×24×24", "4×24×24"}
    with np.load(seeing / "reference.npz") as arrays:
        np.testing.assert_allclose(arrays["answers"], logits.numpy(), atol=1e-4)


def test_the_report_speaks_of_pictures(seeing: Path) -> None:
    told, page = (seeing / "told.txt").read_text(), (seeing / "report.html").read_text()
    for text in (told, (seeing / "report.md").read_text(), page):
        assert "batch × height × width" in text
        assert "batch × tokens" not in text
    assert "a call of 4 pictures of 24 × 24" in page


def test_what_is_shipped_is_packed_and_sees(seeing: Path, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    done = within("pack", seeing, "--candidate", "ort-cpu/fp32", "--out", out)
    assert done.returncode == 0, done.stderr
    assert " on 60 examples, PyTorch fp32 " in (out / "README.md").read_text()
    done = within(
        "compare", out, "--data", digits, "--batch-sizes", "2", "--budget", "smoke", "--out", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert "ort-cpu/fp32" in done.stdout


def test_what_is_not_calibrated_yet_is_a_row_with_its_reason(seeing: Path) -> None:
    asked = tuple(known_candidate(name) for name in ("ort-cpu/fp32", "openvino-cpu/int8-static+nncf"))
    runnable, failures = find_runnable(find_models(seeing), asked, 1, calibrated=False)
    assert [candidate.id for candidate in runnable] == ["ort-cpu/fp32"]
    assert [failure.reason for failure in failures] == ["it is not calibrated on pictures yet"]


@pytest.mark.parametrize(
    ("precision", "options", "words"),
    [
        (Precision.FP32, TorchOptions(compile=True), "models that see are not compiled yet"),
        (Precision.INT8_DYNAMIC, TorchOptions(), "int8 is not made of models that see yet"),
    ],
)
def test_what_pytorch_does_not_do_yet_is_said(
    seeing: Path, precision: Precision, options: TorchOptions, words: str
) -> None:
    runtime = EngineRuntime(seeing / "checkpoint", precision, 1, options)
    with pytest.raises(UserError, match=words):
        runtime.__enter__()
    with pytest.raises(RuntimeError, match="not open"):
        _ = runtime.info


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "--lengths", "16"), "--lengths is given, and it is about texts"),
        (("compare", "--calibration", "x.csv"), "--calibration is given, and it is about texts"),
        (("load-test", "--candidate", "ort-cpu/fp32"), "load tests are for models that read texts so far"),
    ],
)
def test_what_is_about_texts_is_refused(seeing: Path, arguments: tuple[str, ...], words: str) -> None:
    fails(within(arguments[0], seeing, *arguments[1:]), 2, words)


def test_a_checkpoint_alone_does_not_say_how_pictures_are_prepared(seeing: Path, digits: Path, tmp_path: Path) -> None:
    done = within("compare", seeing / "checkpoint", "--data", digits, "--out", tmp_path / "run")
    fails(done, 2, "does not say how pictures become its input", "steelyard export it, then compare the run")


def test_a_picture_that_is_none_is_named(seeing: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"none")
    (tmp_path / "data.csv").write_text(f"image,label\n{rows_of(seeing)[0]['image']},0\nbroken.png,1\n")
    done = within("compare", seeing, "--data", tmp_path / "data.csv", "--out", tmp_path / "run")
    fails(done, 2, "broken.png is not a picture that Pillow reads")
    with pytest.raises(UserError, match=r"nowhere\.png does not exist"):
        Pictures((str(tmp_path / "nowhere.png"),), settings_of(seeing))[0]


def test_a_picture_that_changed_is_judged_anew(seeing: Path, tmp_path: Path) -> None:
    """By its export, too: the file that names it is the same."""
    lines = ["image,label"]
    for number, row in enumerate(rows_of(seeing)[:4]):
        (tmp_path / f"{number}.png").write_bytes(Path(row["image"]).read_bytes())
        lines.append(f"{number}.png,{row['label']}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    data = Source(tmp_path / "data.csv", Columns())
    request = Request(seeing / "checkpoint", tmp_path / "run", (Precision.FP32,), data=data)
    assert [export(request)[0].made, export(request)[0].made] == [True, False]
    Image.new("RGB", (24, 24)).save(tmp_path / "3.png")
    assert export(request)[0].made


def settings_of(run: Path) -> ImageSettings:
    found = find_models(run).image
    assert found is not None
    return found


@pytest.fixture
def inputs(seeing: Path) -> Inputs:
    items = tuple(row["image"] for row in rows_of(seeing)[:5])
    return build_picture_inputs(Pictures(items, settings_of(seeing)), (2, 7), find_models(seeing).decided())


def test_workers_see_what_was_written_for_them(inputs: Inputs, tmp_path: Path) -> None:
    save_inputs(tmp_path / "inputs.npz", inputs)
    found = load_inputs(tmp_path / "inputs.npz")
    assert inputs.pictures is not None
    assert len(found) == len(inputs) == len(inputs.pictures) == 5
    assert found.evaluation_rows(2) == [[0, 1], [2, 3], [4]]
    assert found.evaluation_rows(None) == [[0, 1, 2, 3, 4]]  # many of so small ones are served at once
    for batch, rows in (
        (found.workloads[0].batches[0], [0, 1]),
        (found.workloads[1].batches[0], [0, 1, 2, 3, 4, 0, 1]),
    ):
        for seen in (found, inputs):
            np.testing.assert_array_equal(batch["pixel_values"], seen.batch(rows, ("pixel_values",))["pixel_values"])
        check_batch(batch, ("pixel_values",))


def test_a_full_disk_is_told(inputs: Inputs) -> None:
    assert isinstance(inputs.pictures, Pictures)
    with pytest.raises(OSError, match="No space left"):
        inputs.pictures.write(Path("/dev/full"))


def test_the_hash_is_of_what_the_files_hold(seeing: Path, inputs: Inputs, tmp_path: Path) -> None:
    pictures = inputs.pictures
    assert isinstance(pictures, Pictures)
    copies = []
    for number, item in enumerate(pictures.items):
        (tmp_path / f"{number}.png").write_bytes(Path(item).read_bytes())
        copies.append(str(tmp_path / f"{number}.png"))
    judged = find_models(seeing).decided()
    assert build_picture_inputs(Pictures(tuple(copies), pictures.settings), (2, 7), judged).sha256 == inputs.sha256
    Image.new("RGB", (24, 24)).save(tmp_path / "4.png")  # which is in no batch of two
    assert build_picture_inputs(Pictures(tuple(copies), pictures.settings), (2, 7), judged).sha256 != inputs.sha256


def test_pictures_of_their_own_size_are_not_compared(seeing: Path, inputs: Inputs) -> None:
    assert isinstance(inputs.pictures, Pictures)
    other = replace(settings_of(seeing), resize="shortest", size=(24,), crop=())
    with pytest.raises(UserError, match="takes pictures as large as they come"):
        build_picture_inputs(Pictures(inputs.pictures.items, other), (1,), find_models(seeing).decided())


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 4), dtype=np.float32), "a batch has shape (batch, channels, height, width)"),
        (np.zeros((1, 3, 4, 4), dtype=np.float64), "inputs are float32; these are not: {'pixel_values': 'float64'}"),
        (np.zeros((0, 3, 4, 4), dtype=np.float32), "each at least 1"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(array: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_batch({"pixel_values": array}, ("pixel_values",))
    assert words in caught.value.message
