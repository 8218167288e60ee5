"""A fake engine in real worker processes, small inputs, and models made of one word."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from artifact.judged import Judged
from artifact.precision import Precision
from artifact.predict.tokens import TextLimits
from measure import process
from measure.messages import Open
from measure.plan import Plan
from measure.source import ModelSource
from measure.workload import FromText, Inputs, build_inputs, save_inputs
from runtimes.base import Candidate
from runtimes.registry import REGISTRY
from tests.conftest import ROOT, TEXTS
from tests.fakes import FAKE

PLAN = Plan(
    name="tiny",
    replicates=2,
    most_replicates=2,
    limit_s=60.0,
    rounds=2,
    block_s=0.02,
    warm_up_s=0.02,
    settle_s=0.0,
    least_passes=1,
    most_passes=3,
    timeout_s=60,
    seed=0,
)
LIMITS = TextLimits(max_length_tokens=64, pad_id=0, pad_type_id=0, pad_left=False)
REGISTER = """
from runtimes.registry import REGISTRY
from tests.fakes import FAKE
REGISTRY["fake"] = FAKE
"""

Opens = Callable[[str], Open]
MakeSource = Callable[[Mapping[Precision, str]], ModelSource]


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Register `fake` here and in every worker that is started."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REGISTER)
    monkeypatch.setattr(process, "ROOT", f"{tmp_path / 'site'}{os.pathsep}{ROOT}")
    monkeypatch.setitem(REGISTRY, "fake", FAKE)


@pytest.fixture
def make_source(tiny_checkpoint: Path, tmp_path: Path) -> MakeSource:
    """A folder whose graphs are words for the fake engine."""

    def make(words: Mapping[Precision, str]) -> ModelSource:
        graphs = {precision: tmp_path / f"{precision.value}.word" for precision in words}
        for precision, path in graphs.items():
            path.write_text(words[precision])
        labels = ("negative", "positive")
        return ModelSource(tmp_path, tiny_checkpoint, labels, LIMITS, None, graphs, {}, judged=Judged.TEXT)

    return make


@pytest.fixture
def inputs(tiny_checkpoint: Path) -> Inputs:
    """The six short texts at 2×4 and in their natural mix; three of them, three times, to calibrate on."""
    from artifact.tokenizer import text_encoder

    return build_inputs(
        TEXTS, text_encoder(tiny_checkpoint, LIMITS), LIMITS, (2,), (4, None), calibration=TEXTS[:3] * 3
    )


@pytest.fixture
def inputs_file(inputs: Inputs, tmp_path: Path) -> Path:
    save_inputs(tmp_path / "inputs.npz", inputs)
    return tmp_path / "inputs.npz"


@pytest.fixture
def opens(inputs_file: Path, tmp_path: Path) -> Opens:
    """The request to open a fake model that holds this word."""

    def make(word: str) -> Open:
        (tmp_path / "model").write_text(word)
        return Open(
            candidate=Candidate("fake", Precision.FP32),
            model=str(tmp_path / "model"),
            threads=1,
            inputs=str(inputs_file),
        )

    return make


@pytest.fixture
def text_opens(opens: Opens, tiny_checkpoint: Path, tmp_path: Path) -> Opens:
    """As `opens`, and the workloads are 2×4, 2×natural, 2×text and 2×text-overlapped; the tokenizer is in `tokens`."""
    from artifact.tokenizer import text_encoder

    tokens = Path(shutil.copytree(tiny_checkpoint, tmp_path / "tokens"))
    lengths = (4, None, FromText.IN_TURN, FromText.OVERLAPPED)
    inputs = build_inputs(TEXTS, text_encoder(tokens, LIMITS), LIMITS, (2,), lengths, tokens)
    save_inputs(tmp_path / "texts.npz", inputs)
    return lambda word: msgspec.structs.replace(opens(word), inputs=str(tmp_path / "texts.npz"))
