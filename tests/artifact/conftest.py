"""One packed artifact, copies of it to damage, and its `predict.py` run as a stranger would run it."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifact.pack import pack
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from tests.conftest import copied


@pytest.fixture(scope="session")
def packed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's fp32 variant as an artifact. Do not write into it; take `artifact`."""
    out = tmp_path_factory.mktemp("packed") / "artifact"
    pack(RunFolder(tiny_run), Precision.FP32, out, card=None, card_reason="not measured")
    return out


@pytest.fixture
def artifact(packed: Path, tmp_path: Path) -> Path:
    """A copy of the packed artifact that a test may damage."""
    return Path(shutil.copytree(packed, tmp_path / "artifact"))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the tiny run that a test may damage."""
    return RunFolder(copied(tiny_run, tmp_path / "run"))


def run_predict(artifact: Path, *arguments: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", str(artifact / "predict.py"), *arguments], input=stdin, capture_output=True, timeout=60
    )


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reseal(artifact: Path) -> None:
    """Make the manifest's sizes and hashes fit what now lies in the folder, as one who damages it on purpose would."""
    files = {
        path.relative_to(artifact).as_posix(): path.read_bytes()
        for path in artifact.rglob("*")
        if path.is_file() and path.name != "steelyard.json"
    }
    sealed = {
        name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    edit_json(artifact / "steelyard.json", files=sealed)


def scale_logits(graph: Path, factor: float) -> None:
    """Multiply the weights of the last layer, and so (its bias being 0) the logits."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "classifier.weight")
    scaled = numpy_helper.to_array(weight) * numpy_helper.to_array(weight).dtype.type(factor)
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
    onnx.save(model, graph)
