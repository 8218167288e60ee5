"""The whole job, and every command of the documents, run as they are written by the installed command."""

import csv
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from measure.records import Failure, Measurement, Role, Session, load
from models import embedded
from tests.conftest import ROOT, within

DOCUMENTS = ("README.md", "docs/artifact.md")
SETS_UP = ("make", "pip", "pipx")
"""Commands that set a machine up; they are checked by what they name, not by running them."""

FEWER = {"steelyard compare runs/reviews --budget smoke": "--candidates ort-cpu/fp32"}
"""What is added to a command of the documents, so that it does not measure once more what the demo has measured."""

WORDS = {
    "positive": ("warm", "funny", "charming", "brilliant", "moving", "honest", "fresh", "lovely"),
    "negative": ("dull", "slow", "boring", "awful", "clumsy", "stale", "dreary", "lifeless"),
}

pytestmark = pytest.mark.slow

Shell = Callable[[str], subprocess.CompletedProcess[str]]


def write_reviews(path: Path) -> None:
    """200 short reviews that any model learns at once: one whose answers are unsure does not quantise well."""
    things = ("a film", "a story", "an ending", "a script")
    rows = [
        (f"{thing} that is {one} and {other}", label)
        for label, words in WORDS.items()
        for thing in things
        for one, other in permutations(words, 2)
    ]
    random.Random(0).shuffle(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows[:200]])


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the documents assume: reviews, and a model that knows them, MiniLM's first layer."""
    from models.embedded import minilm
    from models.lesson import learn
    from models.training import FinetuneConfig, Lesson

    folder = tmp_path_factory.mktemp("user")
    write_reviews(folder / "reviews.csv")
    config = FinetuneConfig(layers=1, epochs=10, learning_rate=1e-3, held_out=40)
    learned = tmp_path_factory.mktemp("small")
    learn(Lesson(base_model=str(minilm()), data=str(folder / "reviews.csv"), config=config), learned)
    (folder / "minilm").symlink_to(learned / "checkpoint")
    (folder / "texts.txt").write_text("A film to remember.\nDull.\n")
    return folder


@pytest.fixture(scope="module")
def shell(user: Path) -> Shell:
    """Run a command line in the user's folder."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=user, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    return run


def run_demo(user: Path, *options: str) -> str:
    """What `steelyard demo` prints that has the small model in MiniLM's place, and 600 of the real reviews."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(user)
        patch.setattr(embedded, "minilm", lambda: user / "minilm")
        done = within("demo", "--examples", "600", "--budget", "smoke", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(user: Path) -> Path:
    """The user's folder after the demo."""
    (user / "demo.json").write_text(run_demo(user, "--json"))
    return user


def told(demo: Path) -> dict[str, object]:
    return dict(json.loads((demo / "demo.json").read_text()))


def test_the_demo_measures_every_candidate_and_names_the_rest(demo: Path) -> None:
    records = load(demo / "runs/demo/measurements.jsonl")
    measured = {record.entrant.name for record in records if isinstance(record, Measurement)}
    assert measured >= {
        "torch-cpu/fp32",
        "torch-cpu/fp32 (A/A)",
        "torch-cpu/bf16",
        "ort-cpu/fp32",
        "ort-cpu/int8-dynamic",
    }
    runtimes = {record.runtime for record in records if isinstance(record, Measurement | Failure)}
    assert runtimes == {"torch-cpu", "torch-cuda", "ort-cpu", "ort-cuda", "ort-tensorrt", "openvino-cpu"}
    assert all(record.reason for record in records if isinstance(record, Failure))
    sessions = [record for record in records if isinstance(record, Session)]
    assert [[spec.name for spec in session.workloads] for session in sessions] == [["1×128", "8×128", "8×natural"]]


def test_every_engine_ran_with_the_same_threads(demo: Path) -> None:
    records = load(demo / "runs/demo/measurements.jsonl")
    assert len({record.info.threads for record in records if isinstance(record, Measurement)}) == 1


def test_one_process_of_each_has_ratios_and_no_interval(demo: Path) -> None:
    rows = json.loads((demo / "runs/demo/verdict.json").read_text())["rows"]
    ratios = [row["overall"] for row in rows if row["measured"] and row["role"] != Role.ANCHOR]
    assert len(ratios) >= 4
    assert all(ratio["ratio"] > 0 and (ratio["low"], ratio["high"]) == (None, None) for ratio in ratios)
    assert "[too few runs]" in (demo / "runs/demo/report.md").read_text()


def test_fp32_onnx_gives_every_label_of_pytorch(demo: Path) -> None:
    rows = {row["name"]: row for row in json.loads((demo / "runs/demo/verdict.json").read_text())["rows"]}
    assert rows["ort-cpu/fp32"]["quality"]["agreement_fraction"] == 1.0


def test_the_reference_is_what_transformers_answers(demo: Path) -> None:
    """The kept logits against a plain loop over the held-out texts, one at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    checkpoint = demo / "runs/demo/checkpoint"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with (demo / "runs/demo/data/evaluation.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with np.load(demo / "runs/demo/reference.npz") as arrays:
        kept = arrays["answers"]
    assert len(kept) == len(texts) == 120
    with torch.inference_mode():
        expected = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0].numpy() for text in texts]
    np.testing.assert_allclose(kept, np.array(expected), atol=1e-4)


def test_the_demo_predicts_without_torch(demo: Path) -> None:
    answers = told(demo)["predictions"]
    assert isinstance(answers, list)
    assert len(answers) == 3
    for line in answers:
        label, score, _ = line.split("\t")
        assert label in ("negative", "positive")
        assert 0.5 <= float(score) <= 1.0


def test_a_second_demo_reuses_every_stage(demo: Path) -> None:
    kept = {
        path: path.stat().st_mtime_ns
        for name in ("checkpoint", "variants", "measurements.jsonl", "training.json")
        for path in [demo / "runs/demo" / name, *(demo / "runs/demo" / name).rglob("*")]
        if path.is_file()
    }
    assert len(kept) > 6
    said = run_demo(demo)
    assert said.count("(done before, reused)") == 3
    assert "4/5 verdict" in said
    transcript = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert re.findall(r"^\d/5 .*", transcript, re.MULTILINE) == re.findall(r"^\d/5 .*", said, re.MULTILINE)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.exhaustive
def test_the_installed_command_does_it_with_the_real_model(shell: Shell) -> None:
    done = shell("steelyard demo --out runs/real --examples 1200 --budget smoke --json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["training"]["value"]["low"] > 0.5
    assert len(told["predictions"]) == 3


def commands(document: str) -> Iterator[str]:
    """Command lines of a document's console blocks, without their comments."""
    for block in re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield line.removeprefix("$ ").partition("    #")[0].strip()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_commands_run_in_their_order(document: str, demo: Path, shell: Shell) -> None:
    ran = 0
    for line in commands(document):
        if shlex.split(line, comments=True)[0] in SETS_UP:
            continue
        done = shell(f"{line} {FEWER.get(line, '')}")
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout or line.startswith(("python -m venv", "serve/bin/pip"))
        ran += 1
    assert ran >= 4


def test_the_readmes_python_runs(demo: Path, shell: Shell) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 1
    code = snippets[0].replace("runs/reviews/artifact", "runs/demo/artifact")
    done = shell(f"python -c {shlex.quote(code)}")
    assert done.stdout.strip() in ("negative", "positive"), done.stderr


def test_what_sets_a_machine_up_names_things_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = 0
    for document in ("README.md", "CONTRIBUTING.md"):
        for line in commands(document):
            words = shlex.split(line, comments=True)
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
                named += 1
            for listed in re.findall(r"\[([a-z,]+)\]", line):
                assert set(listed.split(",")) <= set(extras), line
                named += 1
    assert named >= 6


def test_links_of_the_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
