import json
from pathlib import Path

import msgspec
import pytest

from artifact.precision import Precision
from measure.records import SCHEMA_VERSION, Entrant, Failure, Measurement, Record, Role, append, load
from runtimes.base import Candidate
from tests.report.records import failure, measurements, session

RECORDS: list[Record] = [
    session(),
    *measurements("ort-cpu/int8-dynamic", {"1×16": 1 / 3, "8×natural": 1e-7}),
    failure("torch-cuda", None, stage="probe", reason="no GPU, nicht verfügbar\n\t“”", hint="×"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for record in RECORDS:
        append(tmp_path / "new" / "measurements.jsonl", record)
    return tmp_path / "new" / "measurements.jsonl"


def test_records_come_back_as_they_were_one_on_each_line(path: Path) -> None:
    assert load(path) == RECORDS
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["session", *["measurement"] * 4, "failure"]
    assert all(json.loads(line)["schema_version"] == SCHEMA_VERSION for line in lines)


def test_records_made_before_there_was_a_second_clock_are_read(path: Path) -> None:
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
    for block in line["blocks"]:
        assert block.pop("device_samples_s") == []
    path.write_text(json.dumps(line) + "\n")
    assert load(path) == [RECORDS[1]]


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert load(tmp_path / "measurements.jsonl") == []


def test_a_line_cut_short_anywhere_is_left_out_and_the_next_one_is_whole(path: Path) -> None:
    last = path.read_bytes().splitlines()[1]
    for size in range(len(last)):
        path.write_bytes(last[:size])
        assert load(path) == []
        append(path, RECORDS[-1])
        assert load(path) == [RECORDS[-1]], f"{size} of {len(last)} bytes"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        '{"type": "something-new", "schema_version": 1}',
        '{"type": "failure"}',
        '{"type": "failure", "schema_version": "1"}',
    ],
)
def test_a_line_of_another_kind_is_left_out(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
    assert load(path) == RECORDS


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_a_record_of_another_schema_is_left_out_even_if_it_has_all_fields(path: Path, version: int) -> None:
    line = json.loads(path.read_bytes().splitlines()[1]) | {"schema_version": version}
    path.write_text(json.dumps(line) + "\n")
    assert load(path) == []


def test_the_control_is_told_apart_from_the_anchor_it_repeats() -> None:
    candidate = Candidate("ort-cpu", Precision.FP32)
    assert Entrant(candidate, Role.ANCHOR).name == Entrant(candidate, Role.CANDIDATE).name == "ort-cpu/fp32"
    assert Entrant(candidate, Role.CONTROL).name == "ort-cpu/fp32 (A/A)"


def test_a_measurement_knows_its_entrant(path: Path) -> None:
    record = load(path)[1]
    assert isinstance(record, Measurement)
    assert record.entrant == Entrant(Candidate("ort-cpu", Precision.INT8_DYNAMIC), Role.CANDIDATE)
    assert isinstance(load(path)[-1], Failure)


def test_options_are_a_part_of_a_candidates_name(path: Path) -> None:
    record = load(path)[1]
    assert isinstance(record, Measurement)
    chosen = msgspec.structs.replace(record, options=("no-arena", "no-spinning"))
    append(path, chosen)
    kept = load(path)[-1]
    assert kept == chosen
    assert isinstance(kept, Measurement)
    assert kept.entrant.name == "ort-cpu/int8-dynamic+no-arena+no-spinning"
