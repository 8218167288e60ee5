"""`steelyard compare --from`, the installed command: what it prints, and its exit codes for CI."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from measure.records import Record, append
from tests.conftest import Steelyard
from tests.report.records import session
from tests.report.test_compare_runs import INT8, other_anchor, records
from tests.test_cli import fails


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write(tmp_path / "before", records("s1"))


def write(folder: Path, made: Sequence[Record]) -> Path:
    for record in made:
        append(folder / "measurements.jsonl", record)
    return folder


def test_runs_that_are_alike_exit_with_0_and_tell_the_tables(
    before: Path, tmp_path: Path, steelyard: Steelyard
) -> None:
    after = write(tmp_path / "after", records("s2"))
    done = steelyard("compare", "--from", before, "--from", after, "--out", tmp_path / "difference.md")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("No regression was found", "Time of", "Side by side", "Accuracy", "Costs"):
        assert words in done.stdout
    written = (tmp_path / "difference.md").read_text()
    assert "# Runs beside each other" in written
    assert not [path.name for path in after.iterdir() if path.name != "measurements.jsonl"]


def test_a_regression_exits_with_1_after_everything_was_told(
    before: Path, tmp_path: Path, steelyard: Steelyard
) -> None:
    after = write(tmp_path / "after", records("s2", slower=1.25))
    done = steelyard("compare", "--from", before, "--from", after)
    assert done.returncode == 1
    assert f"error: regressed: {INT8} (1×16, 8×natural)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Side by side" in done.stdout
    wide = steelyard("compare", "--from", before, "--from", after, "--max-slowdown", "40%")
    assert wide.returncode == 0


def test_json_is_one_document_whatever_the_exit_code(before: Path, tmp_path: Path, steelyard: Steelyard) -> None:
    after = write(tmp_path / "after", records("s2", slower=1.25))
    done = steelyard("compare", "--from", before, "--from", after, "--json", "--max-accuracy-drop", "2%")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["regressions"] == [f"{INT8} (1×16, 8×natural)"]
    assert told["bounds"] == {"slowdown_fraction": 0.05, "accuracy_drop_fraction": 0.02}
    assert [item["name"] for item in told["differences"][0]["candidates"]] == ["torch-cpu/fp32", INT8]


def test_what_is_not_shown_fails_only_where_that_is_asked_for(
    before: Path, tmp_path: Path, steelyard: Steelyard
) -> None:
    unsure = write(tmp_path / "unsure", records("s2", slower=1.04))
    sure = write(tmp_path / "sure", records("s3"))
    assert steelyard("compare", "--from", before, "--from", unsure).returncode == 0
    done = steelyard("compare", "--from", before, "--from", unsure, "--strict")
    assert done.returncode == 1
    assert "not shown to be within the bounds" in done.stderr
    assert steelyard("compare", "--from", before, "--from", sure, "--strict").returncode == 0


def test_a_comparison_of_nothing_does_not_pass(before: Path, tmp_path: Path, steelyard: Steelyard) -> None:
    copy = write(tmp_path / "copy", records("s1"))
    done = steelyard("compare", "--from", before, "--from", copy)
    assert done.returncode == 1
    assert "could be judged" in done.stderr
    assert "very same measurements" in done.stderr


def test_runs_without_a_candidate_in_common_are_refused(before: Path, tmp_path: Path, steelyard: Steelyard) -> None:
    other = write(tmp_path / "other", other_anchor("s2")[:5])
    fails(steelyard("compare", "--from", before, "--from", other), 2, "no candidate in common", INT8, "ort-cpu/fp32")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "A"), ("--from is given once", "--from RUN --from RUN")),
        (("--from", "A", "--from", "./A"), ("--from names the same run twice",)),
        (("--from", "A", "--from", "nowhere"), ("nowhere has no measurements", "steelyard compare")),
        (("A", "--from", "A", "--from", "B"), ("RUN_OR_CHECKPOINT is for measuring", "leave one of them out")),
        (("--from", "A", "--from", "B", "--budget", "quick"), ("--budget is for measuring",)),
        (("--from", "A", "--from", "B", "--data", "x.csv"), ("--data is for measuring",)),
        (("A", "--max-slowdown", "5%"), ("--max-slowdown is for runs that were measured before",)),
        (("A", "--strict"), ("--strict is for runs that were measured before",)),
        (("--from", "A", "--from", "B", "--max-slowdown", "0.05"), ("--max-slowdown has '0.05'", "such as 5%")),
        (("--from", "A", "--from", "B", "--max-slowdown", "-5%"), ("--max-slowdown has '-5%'",)),
        (("--from", "A", "--from", "B", "--max-accuracy-drop", "1.2.3%"), ("--max-accuracy-drop has '1.2.3%'",)),
        ((), ("there is nothing to compare", "--from")),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steelyard: Steelyard,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "A", records("s1"))
    write(tmp_path / "B", records("s2"))
    fails(steelyard("compare", *arguments), 2, *words)


def test_a_run_whose_question_nothing_answers_is_refused(before: Path, tmp_path: Path, steelyard: Steelyard) -> None:
    empty = write(tmp_path / "empty", [session("s2")])
    fails(steelyard("compare", "--from", before, "--from", empty), 2, "no candidate in common")
