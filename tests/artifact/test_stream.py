import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifact.predict import stream
from artifact.predict.answers import Prediction
from artifact.predict.predictor import Predictor
from artifact.predict.rows import ItemColumns
from artifact.predict.stream import Wanted, predict_file, windows
from errors import UserError
from tests.artifact.conftest import run_predict
from tests.conftest import ROOT

ROWS = 60


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows of many lengths, the shortest last, with line breaks and commas."""
    path = tmp_path / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text"))
        writer.writerows((number, f"film {number}, it is\n{'good ' * (ROWS - number)}") for number in range(ROWS))
    return path


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WINDOW_ITEMS", 7)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_windows_hold_every_item_once_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WINDOW_ITEMS", 3)
    monkeypatch.setattr(stream, "WINDOW_CHARACTERS", 10)
    found = list(windows(["a", "b", "c", "d", "e" * 20, "f", "g" * 6, "h" * 6, "i"], len))
    assert found == [["a", "b", "c"], ["d", "e" * 20], ["f", "g" * 6, "h" * 6], ["i"]]
    assert list(windows([], len)) == []


@pytest.mark.usefixtures("small_windows")
def test_answers_stand_in_the_order_of_the_rows(packed: Path, data: Path, tmp_path: Path) -> None:
    predictor, out = Predictor.open(packed), tmp_path / "out.jsonl"
    told: list[int] = []
    assert predict_file(predictor, data, out, Wanted(kept=("id",)), told.append) == ROWS
    assert told == [0, *range(7, ROWS, 7), ROWS]
    found = lines(out)
    assert [row["id"] for row in found] == [str(number) for number in range(ROWS)]
    for row, answer in zip(found[::9], predictor.predict([str(row["text"]) for row in found[::9]]), strict=True):
        assert isinstance(answer, Prediction)
        assert row["label"] == answer.label
        assert row["score"] == pytest.approx(answer.score, abs=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"data.csv", "out.jsonl"}


@pytest.mark.usefixtures("small_windows")
def test_csv_has_a_column_for_each_label(packed: Path, data: Path, tmp_path: Path) -> None:
    predict_file(Predictor.open(packed), data, tmp_path / "out.csv", Wanted(kept=("id",)))
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["id", "text", "label", "score", "score:negative", "score:positive", "labels"]
    assert [row["id"] for row in found] == [str(number) for number in range(ROWS)]
    assert all(float(row["score:negative"]) + float(row["score:positive"]) == pytest.approx(1) for row in found)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.usefixtures("small_windows")
def test_what_was_interrupted_goes_on_and_gives_the_same_bytes(
    packed: Path, data: Path, tmp_path: Path, suffix: str
) -> None:
    predictor, wanted = Predictor.open(packed), Wanted(kept=("id",))
    predict_file(predictor, data, tmp_path / f"whole{suffix}", wanted)
    out = tmp_path / f"out{suffix}"

    def stop(rows: int) -> None:
        if rows >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, data, out, wanted, stop)
    assert not out.exists()
    with (tmp_path / f"out{suffix}.part").open("ab") as file:
        file.write(b"half a li")  # what a kill in the middle of a window leaves
    begun: list[int] = []
    assert predict_file(predictor, data, out, wanted, begun.append) == ROWS
    assert begun[0] == 35
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.usefixtures("small_windows")
def test_other_questions_begin_again(packed: Path, data: Path, tmp_path: Path) -> None:
    predictor, out = Predictor.open(packed), tmp_path / "out.jsonl"

    def stop(rows: int) -> None:
        if rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, data, out, Wanted(), stop)
    begun: list[int] = []
    predict_file(predictor, data, out, Wanted(top_k=1), begun.append)
    assert begun[0] == 0
    assert all(len(dict(row["scores"])) == 1 for row in lines(out))  # type: ignore[call-overload]


def test_a_killed_program_is_resumed(packed: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps({"text": f"film {number} " * 20}) + "\n" for number in range(12_000)))
    command = [sys.executable, "-I", str(packed / "predict.py"), "--data", str(data), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not out.with_name("out.jsonl.part.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    done = run_predict(packed, "--data", str(data), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert [str(row["text"]).split()[1] for row in lines(out)] == [str(number) for number in range(12_000)]


@pytest.mark.usefixtures("small_windows")
def test_a_row_that_cannot_be_answered_keeps_what_came_before(packed: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    rows = [{"text": f"film {number}"} for number in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": 5}]))
    with pytest.raises(UserError, match="row 21: column 'text' is not text"):
        predict_file(Predictor.open(packed), data, out, Wanted())
    assert len(lines(out.with_name("out.jsonl.part"))) == 14


def test_columns_are_found_or_named(packed: Path, data: Path, tmp_path: Path) -> None:
    predictor, out = Predictor.open(packed), tmp_path / "out.jsonl"
    predict_file(predictor, data, out, Wanted(columns=ItemColumns(text="id")))
    assert lines(out)[5]["text"] == "5"
    for wanted, message in (
        (Wanted(columns=ItemColumns(text="body")), "no column 'body'"),
        (Wanted(kept=("date",)), "no column 'date'"),
    ):
        with pytest.raises(UserError, match=message):
            predict_file(predictor, data, tmp_path / "other.jsonl", wanted)


@pytest.mark.parametrize(("out", "message"), [("out.txt", "neither .jsonl nor .csv"), ("data.csv", "is the file that")])
def test_where_answers_cannot_go_is_told(packed: Path, data: Path, tmp_path: Path, out: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predict_file(Predictor.open(packed), data, tmp_path / out, Wanted())
    assert len(data.read_text()) > 1000


def test_a_folder_that_cannot_be_written_is_told(packed: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        predict_file(Predictor.open(packed), data, tmp_path / "nowhere" / "out.jsonl", Wanted())


def test_parquet_is_read(packed: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": ["a warm film", "dull"], "id": [1, 2]})
    parquet.write_table(table, tmp_path / "data.parquet")
    predict_file(Predictor.open(packed), tmp_path / "data.parquet", tmp_path / "out.jsonl", Wanted(kept=("id",)))
    assert [(row["id"], row["text"]) for row in lines(tmp_path / "out.jsonl")] == [(1, "a warm film"), (2, "dull")]


def test_both_command_lines_write_the_same_file(packed: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert run_predict(packed, "--data", str(data), "--out", str(first), "--keep", "id").returncode == 0
    command = [sys.executable, "-P", "-m", "cli", "predict", str(packed), "--data", str(data), "--out", str(second)]
    done = subprocess.run(
        [*command, "--keep", "id"], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert first.read_bytes() == second.read_bytes()
    assert done.stdout.decode() == f"{ROWS} answers in {second}\n"
