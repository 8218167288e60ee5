from pathlib import Path

import pytest

from artifact.precision import Precision
from artifact.run_folder import RunFolder, claim_output
from errors import UserError


def checkpoint_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_files_lie_where_the_design_says() -> None:
    run = RunFolder(Path("runs/x"))
    found = (run.training, run.own_checkpoint, run.reference, run.measurements, run.verdict, run.report, run.page)
    assert [path.relative_to("runs/x").as_posix() for path in found] == [
        "training.json",
        "checkpoint",
        "reference.npz",
        "measurements.jsonl",
        "verdict.json",
        "report.md",
        "report.html",
    ]
    assert run.golden == Path("runs/x/golden.json")
    assert run.variant(Precision.INT8_DYNAMIC) == Path("runs/x/variants/int8-dynamic")
    assert (run.training_data, run.evaluation_data) == (
        Path("runs/x/data/train.csv"),
        Path("runs/x/data/evaluation.csv"),
    )


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).checkpoint is None


def test_a_linked_checkpoint_is_found_again_after_both_moved(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "old" / "models" / "bert")
    run = RunFolder(tmp_path / "old" / "runs" / "x")
    run.directory.mkdir(parents=True)
    run.link_checkpoint(tmp_path / "old" / "models" / "bert")
    (tmp_path / "old").rename(tmp_path / "new")
    assert RunFolder(tmp_path / "new" / "runs" / "x").checkpoint == tmp_path / "new" / "models" / "bert"


def test_a_link_holds_for_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_in(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("runs/x"))
    run.link_checkpoint(Path("bert"))
    assert run.checkpoint is not None
    assert run.checkpoint.samefile(tmp_path / "bert")


def test_a_link_holds_when_the_run_is_reached_through_a_symlink(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "bert")
    (tmp_path / "disk" / "big" / "runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "big" / "runs")
    run = RunFolder(tmp_path / "runs" / "x")
    run.directory.mkdir()
    run.link_checkpoint(tmp_path / "bert")
    assert run.checkpoint == tmp_path / "bert"


def test_its_own_checkpoint_needs_no_link(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "x")
    checkpoint_in(run.own_checkpoint)
    run.link_checkpoint(tmp_path / "x" / ".." / "x" / "checkpoint")
    assert not run.checkpoint_link.exists()
    assert run.checkpoint == run.own_checkpoint


def test_a_run_with_its_own_checkpoint_takes_no_other(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "x")
    checkpoint_in(run.own_checkpoint)
    with pytest.raises(UserError, match="has a checkpoint of its own"):
        run.link_checkpoint(checkpoint_in(tmp_path / "other"))
    assert run.checkpoint == run.own_checkpoint


def test_a_damaged_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match=r"checkpoint\.json"):
        _ = RunFolder(tmp_path).checkpoint


def test_a_folder_that_was_begun_as_a_run_may_be_written_into(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").begin()
    (tmp_path / "run" / "notes.txt").touch()
    assert claim_output(tmp_path / "run").is_run


@pytest.mark.parametrize("name", ["checkpoint/", "variants/", "data/", "training.json", "measurements.jsonl"])
def test_a_users_own_folder_is_no_run_whatever_it_holds(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(UserError, match="holds something else"):
        claim_output(tmp_path)


def test_a_new_or_empty_folder_may_be_written_into(tmp_path: Path) -> None:
    claim_output(tmp_path)
    claim_output(tmp_path / "new")
    assert not RunFolder(tmp_path).is_run


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=f"--out {tmp_path} holds something else"):
        claim_output(tmp_path)
    with pytest.raises(UserError, match=r"thesis\.tex is a file"):
        claim_output(tmp_path / "thesis.tex")
