"""The installed command as a user meets it: exit codes, one sentence and the way out, JSON for machines."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from artifact.precision import Precision
from artifact.run_folder import RunFolder
from cli import app
from commands.stages import export_request
from measure.records import append
from models.rows import Columns
from tests.conftest import ROOT, Steelyard, within
from tests.report.records import usual

COMMANDS = ("finetune", "export", "compare", "load-test", "pack", "verify", "predict", "report", "doctor", "demo")
GOOD = "text,label\n" + "".join(f"good film {n},positive\nbad film {n},negative\n" for n in range(20))


def fails(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with `code`, one `error:` sentence that holds `words`, and no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


@pytest.fixture
def data(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_help_lists_every_command(steelyard: Steelyard) -> None:
    done = steelyard("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout


def test_it_says_which_version_it_is(steelyard: Steelyard) -> None:
    done = steelyard("--version")
    assert (done.returncode, done.stdout) == (0, f"steelyard {version('steelyard')}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_options_and_speaks_json(name: str, steelyard: Steelyard) -> None:
    done = steelyard(name, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout


def test_the_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "compare" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("holds no examples", "header line")),
        ("text,label\n", ("holds no examples",)),
        ("review_body,stars\nfine,1\n", ("has no column named text", "review_body, stars", "--text-column")),
        ("text,label\nfine\n", ("line 2", "not the header's 2 fields")),
        ("text,label\nfine,\n", ("row 2", "has no label")),
    ],
)
def test_unusable_data_is_refused_before_torch_is_loaded(
    text: str, words: tuple[str, ...], data: Callable[[str], Path], steelyard: Steelyard, tmp_path: Path
) -> None:
    path = data(text)
    fails(steelyard("finetune", "base", "--data", path, "--out", tmp_path / "run"), 2, str(path), *words)


def test_a_missing_file_is_named(steelyard: Steelyard, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.csv"
    fails(steelyard("finetune", "base", "--data", path, "--out", tmp_path / "run"), 2, f"{path} does not exist")


def test_a_named_column_that_is_not_there_lists_those_that_are(
    data: Callable[[str], Path], steelyard: Steelyard, tmp_path: Path
) -> None:
    done = steelyard("finetune", "b", "--data", data(GOOD), "--text-column", "body", "--out", tmp_path / "run")
    fails(done, 2, "has no column 'body'", "text, label")


@pytest.mark.slow
def test_one_class_only_is_refused(data: Callable[[str], Path], tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = data("text,label\na,same\nb,same\n")
    fails(within("finetune", tiny_checkpoint, "--data", path, "--out", tmp_path / "run"), 2, "one label only (same)")


@pytest.mark.slow
def test_a_hub_id_without_network_names_the_way_out(
    data: Callable[[str], Path], steelyard: Steelyard, tmp_path: Path
) -> None:
    path = data(GOOD)
    done = steelyard("finetune", "someone/some-model", "--data", path, "--held-out", "10", "--out", tmp_path / "run")
    fails(done, 2, "someone/some-model cannot be loaded", "give a local folder")


@pytest.mark.slow
def test_an_unknown_label_in_the_evaluation_file_is_named(
    data: Callable[..., Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train, other = data(GOOD), data("text,label\nodd,neutral\n", "eval.csv")
    done = within("finetune", tiny_checkpoint, "--data", train, "--eval-data", other, "--out", tmp_path / "run")
    fails(done, 2, "eval.csv, row 2: unknown label 'neutral'", "negative, positive")


@pytest.mark.parametrize("name", ["finetune", "export"])
def test_a_folder_that_holds_something_else_is_left_alone(
    name: str, data: Callable[[str], Path], tiny_checkpoint: Path, steelyard: Steelyard, tmp_path: Path
) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"sea")
    options = ("--data", data(GOOD), "--held-out", "10") if name == "finetune" else ()
    fails(steelyard(name, tiny_checkpoint, *options, "--out", out), 2, f"--out {out} holds something else")
    assert [path.name for path in out.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("model.safetensors", ("has no safetensors weights",)),
        ("tokenizer.json", ("has no tokenizer.json",)),
        ("config.json", ("has no config.json", "not a checkpoint")),
    ],
)
def test_an_incomplete_checkpoint_says_what_it_lacks(
    missing: str, words: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    (broken / missing).unlink()
    fails(within("export", broken, "--out", tmp_path / "run"), 2, str(broken), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "nowhere", "--data", "x.csv"), ("x.csv does not exist",)),
        (("export", "nowhere", "--out", "run"), ("nowhere does not exist",)),
        (("export", "nowhere", "--out", "run", "--precisions", "fp7"), ("--precisions has 'fp7'", "fp32")),
        (("pack", "nowhere", "--out", "a"), ("nowhere has no measurements", "steelyard compare")),
        (("report", "nowhere"), ("nowhere has no measurements",)),
        (("verify", "nowhere"), ("nowhere is not an artifact", "steelyard pack")),
        (("predict", "nowhere", "hello"), ("nowhere is not an artifact",)),
    ],
)
def test_what_is_not_there_is_one_sentence(
    arguments: tuple[str, ...], words: tuple[str, ...], steelyard: Steelyard
) -> None:
    fails(steelyard(*arguments), 2, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch-sizes", "0"), "--batch-sizes has '0'"),
        (("--lengths", "long"), "--lengths has 'long'"),
        (("--lengths", "text,raw"), "--lengths has 'raw'"),
        (("--lengths", "4096"), "the model takes at most 64"),
        (("--runtimes", "tensorflow"), "there is no runtime 'tensorflow'"),
        (("--runtimes", "ort-cpu", "--precisions", "bf16"), "none of ort-cpu runs at bf16"),
        (("--threads", "4096"), "--threads 4096"),
        (("--where", "source"), "--where has 'source'"),
    ],
)
def test_unusable_options_of_compare_name_the_flag(
    options: tuple[str, ...], words: str, tiny_run: Path, reviews: Path, steelyard: Steelyard, tmp_path: Path
) -> None:
    done = steelyard("compare", tiny_run, "--data", reviews, "--out", tmp_path / "results", *options)
    fails(done, 2, words)


def test_a_damaged_tokenizer_is_one_sentence(
    tiny_checkpoint: Path, reviews: Path, steelyard: Steelyard, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (broken / "tokenizer.json").write_text("{")
    done = steelyard("compare", broken, "--data", reviews, "--out", tmp_path / "results", "--lengths", "text")
    fails(done, 2, f"{broken / 'tokenizer.json'} cannot be read", "save the tokenizer again")


NET = "import torch\ndef build():\n    return torch.nn.Linear(2, 2), torch.zeros(1, 2)\n"
CHECKPOINT = "CHECKPOINT"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((CHECKPOINT, "--block-size", "33"), ("--block-size has 33", "a power of two from 16")),
        ((CHECKPOINT, "--head-bits", "6"), ("--head-bits has 6", "give 4 or 8")),
        ((CHECKPOINT, "--head-bits", "4"), ("--head-bits is for language models, and this is none",)),
        ((CHECKPOINT, "--language", "en"), ("--language is for models that hear recordings",)),
        (("--module", "nonsense"), ("--module has 'nonsense'", "write FILE.py:FUNCTION")),
        (("--module", "gone.py:build"), ("--module gone.py does not exist",)),
        (("--module", "net.py:missing"), ("net.py has no function 'missing'",)),
        (("--module", "net.py:build"), ("the sample of 'input' has the shape (1, 2)", "at least two rows")),
        (("weights.bin", "--module", "net.py:build"), ("weights.bin is not a .safetensors file",)),
        ((), ("there is nothing to export", "name a checkpoint, or a module with --module FILE:FUNCTION")),
        ((CHECKPOINT, "--pooling", "mean"), ("--pooling is for models that give features", "text-classification")),
        ((CHECKPOINT, "--data", "gone.csv"), ("gone.csv does not exist",)),
        ((CHECKPOINT, "--precisions", "tf32"), ("--precisions names tf32, which cannot be exported",)),
        ((CHECKPOINT, "--precisions", "int8-static"), ("int8-static needs examples of the training split",)),
    ],
)
def test_unusable_options_of_export_are_one_sentence(
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process, because another would load torch anew."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    named = [str(tiny_checkpoint) if word == CHECKPOINT else word for word in arguments]
    fails(within("export", *named, "--out", "run"), 2, *words)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("option", "known"), [("--profile", "ort-gpu"), ("--target", "x86-without-vnni"), ("--pooling", "lasttoken")]
)
def test_an_unknown_choice_of_export_lists_those_there_are(option: str, known: str) -> None:
    done = CliRunner().invoke(app, ["export", "model", "--out", "run", option, "fastest"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "'fastest' is not one of" in done.stderr
    assert known in done.stderr


def request_of(checkpoint: Path, precisions: tuple[Precision, ...] | None, **given: Any) -> Any:
    usual = {"module": None, "data": (None, 500), "calibration": None, "columns": (None, None, None)}
    return export_request(checkpoint, Path("run"), precisions, **{**usual, **given})


def pretend_checkpoint(folder: Path) -> None:
    """What a folder must have for its export to be ordered."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()


def test_all_leaves_out_what_cannot_be_calibrated_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_checkpoint(tmp_path)
    without = request_of(tmp_path, None)
    assert [str(precision) for precision in without.precisions] == ["fp32", "fp16", "bf16", "int8-dynamic", "int4"]
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err == "int8-static is left out: it needs training examples (--calibration FILE)\n"
    given = request_of(tmp_path, None, calibration=tmp_path / "train.csv")
    assert Precision.INT8_STATIC in given.precisions
    assert capsys.readouterr().err == ""
    assert request_of(tmp_path, (Precision.FP32,)).precisions == (Precision.FP32,)
    assert capsys.readouterr().err == ""


def test_a_runs_own_checkpoint_and_splits_are_taken_where_none_are_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    pretend_checkpoint(tmp_path)
    pretend_checkpoint(run.own_checkpoint)
    for path in (run.evaluation_data, run.training_data):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert request_of(tmp_path, None).data is None  # a folder that is not marked as a run has no splits
    run.begin()
    request = request_of(tmp_path, None, data=(None, 7), columns=("body", "pair", "stars"))
    assert request.model == run.own_checkpoint
    assert (request.data.path, request.data.limit) == (run.evaluation_data, 7)
    assert (request.calibration.path, request.calibration.limit) == (run.training_data, None)
    assert request.data.columns == Columns()  # its own files have the columns that finetune wrote
    named = request_of(tmp_path, None, data=(tmp_path / "other.csv", 500), calibration=tmp_path / "more.csv")
    assert (named.data.path.name, named.calibration.path.name) == ("other.csv", "more.csv")
    asked = request_of(tmp_path, None, data=(tmp_path / "other.csv", 500), columns=("body", "pair", "stars"))
    assert asked.data.columns == Columns("body", "pair", "stars")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--candidates", "abacus/fp32"), ("no runtime 'abacus'", "torch-cpu")),
        (("--candidates", "ort-cpu/fp32+fast"), ("no option '+fast'", "+no-spinning")),
        (("--candidates", "ort-cpu/fp32", "--runtimes", "ort-cpu"), ("--runtimes", "give one")),
    ],
)
def test_candidates_that_cannot_be_are_named(
    steelyard: Steelyard, tiny_run: Path, reviews: Path, tmp_path: Path, asked: tuple[str, ...], words: tuple[str, ...]
) -> None:
    fails(steelyard("compare", tiny_run, "--data", reviews, "--out", tmp_path / "out", *asked), 2, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scenarios", "poisson"), ("--scenarios has 'poisson'", "single-stream")),
        (("--rate", "0"), ("--rate has 0", "above 0")),
        (("--duration-s", "-1"), ("--duration-s has -1",)),
        (("--max-p99-ms", "nan"), ("--max-p99-ms has nan",)),
        (("--candidate", "ort-cpu/fp32,abacus/fp32"), ("no runtime 'abacus'",)),
        (("--candidate", "ort-cpu/int4"), ("no candidate can run here", "has no int4 variant")),
        (("--threads", "4096"), ("--threads 4096",)),
        ((), ("was not compared", "name one with --candidate")),
    ],
)
def test_unusable_options_of_load_test_are_one_sentence(
    options: tuple[str, ...],
    words: tuple[str, ...],
    tiny_run: Path,
    reviews: Path,
    steelyard: Steelyard,
    tmp_path: Path,
) -> None:
    named = () if not options or "--candidate" in options else ("--candidate", "ort-cpu/fp32")
    done = steelyard("load-test", tiny_run, "--data", reviews, "--out", tmp_path / "out", *named, *options)
    fails(done, 2, *words)


def test_a_load_test_needs_texts(steelyard: Steelyard, tiny_run: Path) -> None:
    done = steelyard("load-test", tiny_run, "--candidate", "ort-cpu/fp32")
    fails(done, 2, f"{tiny_run} has no evaluation data of its own", "--data")


def test_a_load_test_without_loadgen_says_what_to_install(tmp_path: Path) -> None:
    """Where Python finds no such module; `-S` would hide the others too."""
    program = "import sys; sys.modules['mlperf_loadgen'] = None; from cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "load-test", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    fails(done, 2, "mlperf_loadgen, which is not installed", "pip install 'steelyard[loadgen]'")


def test_a_load_test_is_told_kept_and_not_done_again(
    steelyard: Steelyard, tiny_run: Path, reviews: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "out")
    command = ("load-test", tiny_run, "--data", reviews, "--out", run.directory, "--candidate", "ort-cpu/fp32")
    asked = ("--scenarios", "single-stream,server", "--rate", "2000", "--max-p99-ms", "5000", "--duration-s", "0.2")
    done = steelyard(*command, *asked)
    assert done.returncode == 0, done.stderr
    assert "server at 2,000/s" in done.stdout
    assert "VALID" in done.stdout
    lines = run.load.read_bytes().splitlines()
    told = json.loads(steelyard(*command, *asked, "--json").stdout)
    again = run.load.read_bytes().splitlines()
    assert again[: len(lines)] == lines
    assert len(again) == len(lines) + 1  # the question alone
    assert [test["scenario"] for test in told["tests"]] == ["single-stream", "server"]
    assert all(test["latency"]["p50_s"] > 0 and test["queries"] >= 64 for test in told["tests"])
    assert "ort-cpu/fp32" in run.load_report.read_text()


def test_usage_errors_exit_with_2(steelyard: Steelyard) -> None:
    assert steelyard("compare").returncode == 2
    assert steelyard("no-such-command").returncode == 2


def test_doctor_tells_machine_and_runtimes(steelyard: Steelyard) -> None:
    told = json.loads(steelyard("doctor", "--json").stdout)
    by_name = {item["runtime"]: item for item in told["runtimes"]}
    assert set(by_name) == {
        *("torch-cpu", "torch-cuda", "ort-cpu", "ort-cuda", "ort-tensorrt", "openvino-cpu", "ort-genai", "llama-cpp")
    }
    for name in ("torch-cpu", "ort-cpu", "openvino-cpu", "ort-genai"):
        assert by_name[name]["available"]
    for item in told["runtimes"]:
        assert item["available"] or (item["reason"] and item["remedy"])
    assert 1 <= told["threads"] == told["machine"]["usable_cores"] <= len(os.sched_getaffinity(0))
    assert told["noise"]["median_s"] > 0
    runs = {item["name"]: item["runs"] for item in told["candidates"]}
    assert runs["torch-cpu/fp32"]
    assert runs["ort-cpu/int8-dynamic"]
    assert "torch-cpu/bf16+autocast+compile" in runs
    writes = {item["name"]: item for item in told["language"]}
    assert writes["ort-cpu/fp16"]["runs"]
    assert by_name["ort-cuda"]["available"] or writes["ort-cuda/bf16"]["reason"] == by_name["ort-cuda"]["reason"]


def test_doctor_reports_and_uses_the_one_core_that_it_may_use(steelyard: Steelyard) -> None:
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    try:
        told = json.loads(steelyard("doctor", "--json").stdout)
    finally:
        os.sched_setaffinity(0, every)
    assert (told["threads"], told["machine"]["usable_cores"]) == (1, 1)


GROUPS = {
    Path("/sys/fs/cgroup/cpu"): {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
    Path("/sys/fs/cgroup"): {"cpu.max": "50000 100000"},
}
"""Where version 1 and version 2 keep their groups, and what half a core is there."""


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A cgroup of half a core, where this process may make one."""
    for parent, files in GROUPS.items():
        group = parent / f"steelyard-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            try:
                for name, value in files.items():
                    (group / name).write_text(value)
                yield group
                return
            finally:
                group.rmdir()
    pytest.skip("this process may not make a cgroup with a quota")


def test_doctor_reports_and_uses_the_quota_of_its_cgroup(half_a_core: Path) -> None:
    join = f"echo $$ > {half_a_core}/cgroup.procs && exec {sys.executable} -m cli doctor --json"
    done = subprocess.run(["/bin/sh", "-c", join], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    told = json.loads(done.stdout)
    assert told["machine"]["cpu_quota_cores"] == 0.5
    assert (told["threads"], told["machine"]["usable_cores"]) == (1, 1)


def test_report_derives_everything_again_from_the_raw_samples(steelyard: Steelyard, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for record in usual():
        append(run.measurements, record)
    done = steelyard(
        "report", run.directory, "--markdown", tmp_path / "copy.md", "--html", tmp_path / "new" / "copy.html"
    )
    assert done.returncode == 0
    assert "Ship ort-cpu/int8-dynamic" in done.stdout
    assert (tmp_path / "copy.md").read_text() == run.report.read_text()
    assert (tmp_path / "new" / "copy.html").read_bytes() == run.page.read_bytes()
    assert str(run.page) in done.stdout
    told = json.loads(steelyard("report", run.directory, "--json").stdout)
    assert told == json.loads(run.verdict.read_text())


def test_a_rejected_candidate_is_exit_code_1(steelyard: Steelyard, tmp_path: Path) -> None:
    from tests.report.records import quality

    run = RunFolder(tmp_path / "run")
    for record in usual(int8_scores=(quality(0.8, losses=30),)):
        append(run.measurements, record)
    done = steelyard("pack", run.directory, "--out", tmp_path / "a", "--candidate", "ort-cpu/int8-dynamic")
    fails(done, 1, "was rejected: accuracy 0.800")
    assert not (tmp_path / "a").exists()


def test_a_bug_of_ours_keeps_its_traceback(steelyard: Steelyard, tmp_path: Path) -> None:
    """Nothing swallows an exception that is no `UserError`: here, a measurement file that is a folder."""
    (tmp_path / "run" / "measurements.jsonl").mkdir(parents=True)
    done = steelyard("report", tmp_path / "run")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
