"""Two processes, started by torchrun, train one model over gloo."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from artifact.task import Task
from errors import UserError
from models.finetune import finetune
from models.processes import Processes, join
from models.rows import TaskRows, read_task_rows
from models.training import Device, TrainingRecord
from tests.conftest import ROOT
from tests.models.conftest import CONFIG as ALONE

CONFIG = msgspec.structs.replace(ALONE, held_out=41, dropout=0.0, epochs=2)
FLAGS = ["--batch-size=8", "--learning-rate=5e-3", "--held-out=41", "--dropout=0", "--epochs=2"]
TOLERANCE = 1e-3
"""Sums are made in another order."""

WHOLE = 24
"""Steps of an epoch of 199 examples; in the last one after them, accelerate fills up what one process lacks."""


@dataclass(frozen=True)
class Launched:
    out: Path
    record: TrainingRecord
    printed: str


def launch(checkpoint: Path, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cli"]
    where = more or ("--precision=fp32", "--device=cpu")
    return subprocess.run(
        [
            *command,
            "finetune",
            str(checkpoint),
            "--data",
            str(data),
            "--out",
            str(out),
            *FLAGS,
            *where,
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def launched(tiny_checkpoint: Path, separable_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    out = tmp_path_factory.mktemp("two") / "run"
    done = launch(tiny_checkpoint, separable_csv, out)
    assert done.returncode == 0, done.stderr[-3000:]
    return Launched(out, msgspec.json.decode((out / "training.json").read_bytes(), type=TrainingRecord), done.stdout)


def test_two_learn_what_one_learns_step_by_step(
    launched: Launched, tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    alone, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG)
    assert (launched.record.processes, alone.processes) == (2, 1)
    assert launched.record.steps == alone.steps == 50
    assert launched.record.value.low <= alone.value.value <= launched.record.value.high
    folders = (launched.out, tmp_path / "run")
    two, one = (np.loadtxt(out / "losses.csv", delimiter=",", skiprows=1)[:, 1] for out in folders)
    assert len(two) == len(one) == 50
    np.testing.assert_allclose(two[:WHOLE], one[:WHOLE], rtol=TOLERANCE)


def test_each_example_is_answered_once(launched: Launched) -> None:
    """41 examples cannot be shared evenly: a padded gather would answer one twice."""
    folder = launched.out / "checkpoint"
    held_out = read_task_rows(launched.out / "data" / "evaluation.csv", Task.TEXT_CLASSIFICATION)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with np.load(launched.out / "predictions.npz") as kept, torch.inference_mode():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in held_out.texts]
        assert len(kept["statistics"]) == len(expected) == 41
        np.testing.assert_allclose(kept["logits"], expected, atol=1e-5)
        assert [launched.record.labels[index] for index in kept["truth"]] == list(held_out.labels)


def test_only_one_writes_and_talks(launched: Launched) -> None:
    assert launched.printed.count("accuracy") == 1
    assert sorted(path.name for path in launched.out.iterdir()) == [
        *("checkpoint", "data", "losses.csv", "predictions.npz", "run.json", "training.json")
    ]


@pytest.mark.exhaustive
def test_what_is_done_is_not_done_again(launched: Launched, tiny_checkpoint: Path, separable_csv: Path) -> None:
    before = (launched.out / "training.json").stat().st_mtime_ns
    done = launch(tiny_checkpoint, separable_csv, launched.out)
    assert (done.returncode, done.stdout.count("done before")) == (0, 1)
    assert (launched.out / "training.json").stat().st_mtime_ns == before


def test_what_the_first_refuses_nobody_waits_for(
    launched: Launched, tiny_checkpoint: Path, separable_csv: Path
) -> None:
    done = launch(tiny_checkpoint, separable_csv, launched.out, "--device=cpu", "--precision=fp32", "--seed=1")
    assert done.returncode != 0
    assert done.stderr.count("holds another training") == 2
    assert (launched.out / "training.json").is_file()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match="--batch-size 7 cannot be shared by 2 processes"):
        Processes(0, 2).share(7)


@pytest.mark.parametrize("lacking", ["RANK", "MASTER_ADDR"])
def test_a_count_of_processes_without_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(lacking)
    with pytest.raises(UserError, match=f"WORLD_SIZE=2 says that 2 processes train together, and {lacking}"):
        join(Device.CPU)


def test_several_settings_are_not_compared_under_a_launcher(
    tiny_checkpoint: Path, separable_csv: Path, tmp_path: Path
) -> None:
    done = launch(tiny_checkpoint, separable_csv, tmp_path / "run", "--compare", "cpu/fp32,cpu/bf16")
    assert done.returncode != 0
    assert "starts processes of its own" in done.stderr + done.stdout
