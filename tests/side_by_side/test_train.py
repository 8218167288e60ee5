"""Real trainings of a tiny model in turns, in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from artifact.predict.cores import usable_cores
from errors import UserError
from models.finetune import finetune
from models.rows import TaskRows
from models.training import Device, TrainingPrecision, TrainingRecord
from side_by_side.records import SideBySide, TurnRecord
from side_by_side.report import headline, render
from side_by_side.setting import parse_settings
from side_by_side.train import train_side_by_side
from tests.conftest import Steelyard
from tests.models.conftest import CONFIG, STEPS
from tests.side_by_side.conftest import Compared

pytestmark = pytest.mark.slow
FLAGS = ["--batch-size=8", "--learning-rate=5e-3", "--held-out=40", "--epochs=4"]


def _record(out: Path, folder: str) -> TrainingRecord:
    return msgspec.json.decode((out / folder / "training.json").read_bytes(), type=TrainingRecord)


def _turns(out: Path) -> list[TurnRecord]:
    return [msgspec.json.decode(line, type=TurnRecord) for line in (out / "turns.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.exhaustive)])
def test_each_setting_is_trained_as_by_the_plain_command(
    compared: Compared, tiny_checkpoint: Path, separable_csv: Path, tmp_path: Path, precision: str
) -> None:
    """On as many threads. It begins with the same losses, although it waits every third step; later, what is rounded
    in another order may have grown."""
    steelyard = str(Path(sys.executable).parent / "steelyard")
    places = [steelyard, "finetune", str(tiny_checkpoint), "--data", str(separable_csv), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(usable_cores())}
    command = [*places, *FLAGS, "--device", "cpu", "--precision", precision]
    subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
    found, alone = _record(compared.out, f"cpu-{precision}"), _record(tmp_path, "run")
    assert (found.steps, found.precision, found.data_sha256) == (STEPS, precision, alone.data_sha256)
    curves = [
        np.loadtxt(folder / "losses.csv", delimiter=",", skiprows=1)[:10]
        for folder in (compared.out / f"cpu-{precision}", tmp_path / "run")
    ]
    np.testing.assert_allclose(curves[0], curves[1], atol=0.01 if precision == "fp32" else 0.2)


def test_rows_say_how_the_settings_compare(compared: Compared) -> None:
    base, other, absent = compared.found.rows
    assert compared.found.baseline == base.setting == "cpu/fp32"
    assert (base.speed, base.difference, base.loss_distance) == (None, None, None)
    assert other.speed is not None
    assert other.speed.low <= other.speed.value <= other.speed.high
    assert other.decision in {"faster", "slower", "equivalent", "inconclusive"}
    assert other.difference is not None
    assert 0 < (other.loss_distance or 0) < 0.5
    assert all(row.peak_bytes is not None and row.peak_bytes > 100e6 for row in (base, other))
    assert absent.reason == "--device cuda was asked for, but torch finds no GPU"
    assert absent.hint
    assert (absent.speed, absent.seconds_s) == (None, None)


def test_turns_alternate_and_add_up(compared: Compared) -> None:
    turns = _turns(compared.out)
    for name, folder in (("cpu/fp32", "cpu-fp32"), ("cpu/bf16", "cpu-bf16")):
        own = [turn for turn in turns if turn.setting == name]
        assert [turn.first for turn in own] == [1, *(turn.last + 1 for turn in own[:-1])]
        assert own[-1].last == STEPS
        assert len(own) == 34  # 100 steps, 3 a turn
        total_s = _record(compared.out, folder).seconds_s
        assert sum(turn.seconds_s for turn in own) == pytest.approx(total_s, rel=0.05)  # but for its first batch
    names = [turn.setting for turn in turns]
    assert all(set(names[at : at + 2]) == {"cpu/fp32", "cpu/bf16"} for at in range(0, len(names), 2))
    assert len({tuple(names[at : at + 2]) for at in range(0, len(names), 2)}) == 2, "always in the same order"


def test_the_record_can_be_read_back_and_the_report_tells_it(compared: Compared) -> None:
    record = (compared.out / "side-by-side.json").read_bytes()
    assert msgspec.json.decode(record, type=SideBySide) == compared.found
    text = (compared.out / "side-by-side.md").read_text()
    assert text == render(compared.found)
    assert "## Not trained" in text
    assert all(line in text for line in headline(compared.found))
    assert (compared.out / "losses.svg").read_text().count("<polyline") == 2


def test_another_lesson_is_refused_and_nothing_is_lost(compared: Compared, tmp_path: Path) -> None:
    out = Path(shutil.copytree(compared.out, tmp_path / "out"))
    other = msgspec.structs.replace(compared.lesson, config=msgspec.structs.replace(CONFIG, seed=5))
    with pytest.raises(UserError, match=r"nothing could be trained: .*holds another training"):
        train_side_by_side(other, parse_settings("cpu/fp32,cpu/bf16"), out)
    for name in ("side-by-side.json", "side-by-side.md", "losses.svg", "cpu-fp32/training.json"):
        assert (out / name).read_bytes() == (compared.out / name).read_bytes()


@pytest.mark.exhaustive
def test_a_run_that_was_trained_anew_is_not_told_with_the_memory_of_before(
    compared: Compared, tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    """By the plain command, in the comparison's own folder."""
    out = Path(shutil.copytree(compared.out, tmp_path / "out"))
    shutil.rmtree(out / "cpu-bf16")
    config = msgspec.structs.replace(CONFIG, device=Device.CPU, precision=TrainingPrecision.BF16)
    finetune(str(tiny_checkpoint), separable, out / "cpu-bf16", config=config)
    row = train_side_by_side(compared.lesson, parse_settings("cpu/fp32,cpu/bf16"), out).rows[1]
    assert row.value == _record(out, "cpu-bf16").value
    assert row.peak_bytes is None


@pytest.mark.exhaustive
def test_settings_that_end_early_do_not_end_the_comparison(compared: Compared, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=20, patience=1)
    lesson = msgspec.structs.replace(compared.lesson, config=config)
    found = train_side_by_side(lesson, parse_settings("cpu/fp32,cpu/bf16"), tmp_path / "out")
    for row in found.rows:
        assert row.steps is not None
        assert row.steps < 20 * 23
        turns = [turn for turn in _turns(tmp_path / "out") if turn.setting == row.setting]
        assert turns[-1].last == row.steps
        assert all(turn.seconds_s > 0 for turn in turns)


def test_a_folder_of_something_else_is_left_alone(compared: Compared, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        train_side_by_side(compared.lesson, parse_settings("cpu/fp32,cpu/bf16"), tmp_path)


def _command(checkpoint: Path, data: Path, out: Path) -> list[str]:
    steelyard = str(Path(sys.executable).parent / "steelyard")
    places = [steelyard, "finetune", str(checkpoint), "--data", str(data), "--out", str(out)]
    return [*places, *FLAGS, "--compare", "cpu/fp32,cpu/bf16"]


def _trainees() -> set[int]:
    found = set()
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if "side_by_side.trainee" in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.add(process.info["pid"])
    return found


def test_a_killed_comparison_leaves_no_process_and_goes_on(
    tiny_checkpoint: Path, separable_csv: Path, tmp_path: Path
) -> None:
    before, out = _trainees(), tmp_path / "out"
    command = _command(tiny_checkpoint, separable_csv, out)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (out / "turns.jsonl").exists() or len(_turns(out)) < 30:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5  # they are told, and need not wait for the end of their turn
    while _trainees() - before:
        assert time.monotonic() < deadline, "a training process outlived the command"
        time.sleep(0.1)
    kept = len(_turns(out))
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "cpu/bf16" in done.stdout
    assert str(out / "side-by-side.md") in done.stdout
    found = msgspec.json.decode((out / "side-by-side.json").read_bytes(), type=SideBySide)
    assert [row.steps for row in found.rows] == [STEPS, STEPS]
    assert kept < len(_turns(out))
    assert found.rows[1].speed is not None


def test_one_setting_that_dies_is_a_row_and_the_others_go_on(compared: Compared, tmp_path: Path) -> None:
    """A process that the system ends, as it does where memory runs out."""
    killed = list[int]()

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done > 20 and not killed:
            second = max(psutil.Process().children(), key=lambda child: child.create_time())
            second.kill()
            killed.append(second.pid)

    settings = parse_settings("cpu/fp32,cpu/bf16")
    base, dead = train_side_by_side(compared.lesson, settings, tmp_path / "out", progress=progress).rows
    assert base.steps == STEPS
    assert base.speed is None
    assert "killed by signal 9" in str(dead.reason)
    assert "memory" in dead.hint


def test_the_command_prints_one_document_and_trains_nothing_again(
    steelyard: Steelyard, compared: Compared, tiny_checkpoint: Path, separable_csv: Path
) -> None:
    before = _turns(compared.out)
    places = [tiny_checkpoint, "--data", separable_csv, "--out", compared.out]
    done = steelyard("finetune", *places, *FLAGS, "--compare", "cpu/fp32,cpu/bf16,cuda/bf16", "--json")
    assert done.returncode == 0, done.stderr
    assert msgspec.json.decode(done.stdout, type=SideBySide).rows == compared.found.rows
    assert _turns(compared.out) == before


@pytest.mark.parametrize("damage", ["columns", "rows"])
def test_bad_data_is_said_once_before_anything_starts(
    steelyard: Steelyard, tiny_checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("a,b\n1,2\n" if damage == "columns" else 'text,label\none,a\n"",b\n')
    done = steelyard(
        "finetune", tiny_checkpoint, "--data", data, "--out", tmp_path / "out", "--compare", "cpu/fp32,cpu/bf16"
    )
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cpu"], "--compare names devices and precisions"),
        (["--precision", "bf16"], "--compare names devices and precisions"),
        (["--teacher-share", "0.3"], "are about a teacher"),
    ],
)
def test_options_that_contradict_are_refused(
    steelyard: Steelyard, tiny_checkpoint: Path, separable_csv: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    places = [tiny_checkpoint, "--data", separable_csv, "--out", tmp_path / "out"]
    done = steelyard("finetune", *places, "--compare", "cpu/fp32,cpu/bf16", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
