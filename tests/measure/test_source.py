import json
import shutil
from pathlib import Path

import pytest

from artifact.judged import Judged
from artifact.pack import pack
from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import UserError
from measure.source import find_models
from models.embedded import minilm
from runtimes.base import Candidate, Head
from tests.artifact.conftest import edit_json

TORCH = Candidate("torch-cpu", Precision.FP32)
ORT = Candidate("ort-cpu", Precision.FP32)
INT8 = Candidate("ort-cpu", Precision.INT8_DYNAMIC)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, checkpoint: Path) -> Path:
    """A run with its own checkpoint, to be damaged."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "checkpoint.json").unlink(missing_ok=True)
    shutil.copytree(checkpoint, run / "checkpoint", dirs_exist_ok=True)
    return run


def test_a_run_has_a_checkpoint_and_a_graph_for_each_variant(run: Path) -> None:
    source = find_models(run)
    assert source.model(TORCH) == run / "checkpoint"
    assert source.model(ORT) == run / "variants" / "fp32" / "model.onnx"
    assert source.model(INT8) == run / "variants" / "int8-dynamic" / "model.onnx"
    assert source.labels == ("negative", "positive")
    assert (source.text_limits.max_length_tokens, source.text_limits.pad_id, source.text_limits.pad_left) == (
        64,
        0,
        False,
    )


def test_a_run_finds_a_checkpoint_that_lies_elsewhere(tiny_run: Path, tiny_checkpoint: Path) -> None:
    assert find_models(tiny_run).model(TORCH).resolve() == tiny_checkpoint.resolve()


def test_a_bare_checkpoint_has_no_graphs(checkpoint: Path) -> None:
    source = find_models(checkpoint)
    assert source.model(TORCH) == checkpoint
    with pytest.raises(UserError, match="no fp32 variant") as caught:
        source.model(ORT)
    assert "steelyard export" in caught.value.hint


def test_an_artifact_has_one_graph_and_no_checkpoint(run: Path, tmp_path: Path) -> None:
    pack(RunFolder(run), Precision.FP32, tmp_path / "artifact", card=None, card_reason="none")
    source = find_models(tmp_path / "artifact")
    assert source.model(ORT) == tmp_path / "artifact" / "onnx" / "model.onnx"
    for candidate in (TORCH, INT8):
        with pytest.raises(UserError):
            source.model(candidate)
    with source.model(ORT).open("ab") as file:
        file.write(b"!")
    with pytest.raises(UserError, match=r"model\.onnx was changed"):
        find_models(tmp_path / "artifact")


def test_a_variant_that_failed_its_export_is_refused_with_the_reasons(run: Path) -> None:
    path = run / "variants" / "int8-dynamic" / "variant.json"
    parity = json.loads(path.read_text())["parity"] | {"passed": False, "reasons": ["too far", "too flat"]}
    edit_json(path, parity=parity)
    with pytest.raises(UserError, match="too far; too flat"):
        find_models(run).model(INT8)
    assert find_models(run).model(ORT).is_file()


def test_a_run_without_its_checkpoint_is_refused(run: Path) -> None:
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(UserError, match="a run without a checkpoint"):
        find_models(run)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="neither a run, nor a checkpoint, nor an artifact"):
        find_models(tmp_path)
    for missing in (tmp_path / "nowhere", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="does not exist or is not a folder"):
            find_models(missing)


def test_size_counts_the_weights_and_what_lies_beside_the_graph(run: Path) -> None:
    source, folder = find_models(run), run / "variants" / "fp32"
    assert source.model_bytes(TORCH) == (run / "checkpoint" / "model.safetensors").stat().st_size
    before, sha256 = source.model_bytes(ORT), source.model_sha256(ORT)
    assert before == sum(path.stat().st_size for path in folder.glob("model.onnx*"))
    (folder / "model.onnx_data").write_bytes(b"x" * 1000)
    assert source.model_bytes(ORT) == before + 1000
    assert source.model_sha256(ORT) != sha256


@pytest.mark.parametrize("candidate", [TORCH, ORT], ids=lambda candidate: candidate.id)
def test_the_hash_is_that_of_the_bytes(run: Path, candidate: Candidate) -> None:
    source = find_models(run)
    before = source.model_sha256(candidate)
    assert before == find_models(run).model_sha256(candidate)
    model = source.model(candidate)
    path = model / "model.safetensors" if model.is_dir() else model
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert source.model_sha256(candidate) != before


def test_a_checkpoint_is_another_when_its_configuration_is(checkpoint: Path) -> None:
    """The same weights with other heads give other answers."""
    before = find_models(checkpoint)
    sha256, size = before.model_sha256(TORCH), before.model_bytes(TORCH)
    edit_json(checkpoint / "config.json", num_attention_heads=4)
    after = find_models(checkpoint)
    assert after.model_sha256(TORCH) != sha256
    assert after.model_bytes(TORCH) == size


def test_variants_of_another_state_of_the_checkpoint_are_not_used(run: Path) -> None:
    weights = run / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    source = find_models(run)
    assert source.model(TORCH) == run / "checkpoint"
    with pytest.raises(UserError, match="exported from another state of the checkpoint"):
        source.model(ORT)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertLMHeadModel"])
def test_a_folder_of_sentence_transformers_gives_vectors_whatever_its_weights_are_of(
    checkpoint: Path, kind: str
) -> None:
    for name in ("modules.json", "1_Pooling/config.json"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        shutil.copy(minilm() / name, checkpoint / name)
    edit_json(checkpoint / "config.json", architectures=[kind])
    source = find_models(checkpoint)
    assert (source.judged, source.writes) == (Judged.VECTOR, False)
    assert source.head == Head(("sentence_embedding",), Pooling(PoolingMode.MEAN, normalize=True))
    edit_json(checkpoint / "config.json", architectures=["BertForSequenceClassification"])
    assert find_models(checkpoint).judged is Judged.TEXT


@pytest.mark.parametrize(
    "poolings", [(None,), ({"mode": "mean", "normalize": True}, {"mode": "cls", "normalize": True})]
)
def test_variants_that_pool_in_unlike_or_unknown_ways_are_refused(run: Path, poolings: tuple[object, ...]) -> None:
    every = sorted((run / "variants").glob("*/variant.json"))
    for number, path in enumerate(every):
        (output,) = json.loads(path.read_bytes())["outputs"]
        edit_json(
            path,
            task="feature-extraction",
            outputs=[output | {"name": "sentence_embedding"}],
            pooling=poolings[number % len(poolings)],
        )
    with pytest.raises(UserError, match="pool in different ways, or none of them says how"):
        find_models(run)
    for path in every:
        edit_json(path, pooling={"mode": "cls", "normalize": False})
    assert find_models(run).head == Head(("sentence_embedding",), Pooling(PoolingMode.CLS))


def test_vectors_of_tokens_are_not_compared(run: Path) -> None:
    for path in (run / "variants").glob("*/variant.json"):
        edit_json(path, task="feature-extraction")
    with pytest.raises(UserError, match="a vector for each token") as caught:
        find_models(run).decided()
    assert "--pooling" in caught.value.hint
