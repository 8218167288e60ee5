import errno
import hashlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import artifact.pack
from artifact.bundle import bundle
from artifact.layout import Extras, Layout
from artifact.placing import Packed
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import GateFailed, UserError
from tests.artifact.conftest import edit_json, run_predict, scale_logits
from tests.conftest import ROOT


def pack(run: RunFolder, out: Path, precision: Precision = Precision.FP32) -> Packed:
    return artifact.pack.pack(run, precision, out, card=None, card_reason="not measured")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def reseal_variant(run: RunFolder) -> Path:
    graph = run.variant(Precision.FP32) / "model.onnx"
    edit_json(graph.with_name("variant.json"), files={graph.name: hashlib.sha256(graph.read_bytes()).hexdigest()})
    return graph


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A folder of its own for the artifact, so that anything left beside it is seen."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_artifact_holds_what_the_design_says(packed: Path, tiny_run: Path) -> None:
    files = content(packed)
    assert set(files) == {
        "steelyard.json",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "README.md",
        "onnx/model.onnx",
        "golden.json",
        "predict.py",
        "requirements.txt",
    }
    assert files["onnx/model.onnx"] == (tiny_run / "variants" / "fp32" / "model.onnx").read_bytes()
    assert files["predict.py"] == bundle().encode()
    assert set(files["requirements.txt"].decode().splitlines()) == {
        f"{name}=={version(name)}" for name in ("onnxruntime", "numpy", "tokenizers")
    }


def test_the_manifest_has_the_hash_of_every_other_file(packed: Path) -> None:
    manifest = json.loads((packed / "steelyard.json").read_text())
    others = {name: data for name, data in content(packed).items() if name != "steelyard.json"}
    assert manifest["files"] == {
        name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in others.items()
    }


def test_the_manifest_says_what_the_graph_and_the_checkpoint_say(packed: Path) -> None:
    import onnx

    manifest = json.loads((packed / "steelyard.json").read_text())
    graph = onnx.load(packed / "onnx" / "model.onnx")
    opsets = {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import}
    assert (manifest["opset"], manifest["ir_version"]) == (opsets["ai.onnx"], graph.ir_version)
    assert set(manifest["domains"]) == set(opsets)
    assert (manifest["labels"], manifest["activation"]) == (["negative", "positive"], "softmax")
    assert manifest["limits"]["max_length_tokens"] == 64
    assert (manifest["card"], manifest["card_reason"]) == (None, "not measured")


def test_golden_examples_are_the_answers_of_pytorch(packed: Path, tiny_checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    golden = json.loads((packed / "golden.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint).eval()
    for example in golden["examples"]:
        inputs = tokenizer(example["text"], truncation=True, return_tensors="pt")
        assert {name: array["values"] for name, array in example["inputs"].items()} == {
            name: tensor[0].tolist() for name, tensor in inputs.items()
        }
        with torch.inference_mode():
            expected = model(**inputs).logits[0].numpy()
        np.testing.assert_allclose(example["outputs"]["logits"]["values"], expected, atol=1e-5)
    assert 0 < golden["tolerance"]["logits"] < 0.01


@pytest.mark.parametrize(("precision", "file"), [("fp32", "model.onnx"), ("int8-dynamic", "model_quantized.onnx")])
def test_what_pack_returns_is_what_lies_there(run: RunFolder, parent: Path, precision: str, file: str) -> None:
    found = pack(run, parent / "artifact", Precision(precision))
    files = content(parent / "artifact")
    assert (found.files, found.size_bytes) == (len(files), sum(map(len, files.values())))
    assert names(parent / "artifact" / "onnx") == {file}
    assert names(parent) == {"artifact"}
    assert (parent / "artifact").stat().st_mode & 0o777 == 0o755
    assert run_predict(parent / "artifact", "--selftest").returncode == 0


def test_padding_and_truncation_baked_into_the_tokenizer_are_left_out(
    run: RunFolder, tiny_checkpoint: Path, parent: Path
) -> None:
    baked = Path(shutil.copytree(tiny_checkpoint, run.own_checkpoint)) / "tokenizer.json"
    fixed = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    cut = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    edit_json(baked, padding=fixed | {"pad_to_multiple_of": None}, truncation=cut)
    pack(run, parent / "artifact")
    tokenizer = json.loads((parent / "artifact" / "tokenizer.json").read_text())
    assert tokenizer["padding"] is tokenizer["truncation"] is None


def test_packing_twice_gives_the_same_bytes(run: RunFolder, packed: Path, parent: Path) -> None:
    pack(run, parent / "artifact")
    assert content(parent / "artifact") == content(packed)


def test_an_earlier_artifact_is_replaced_whole(run: RunFolder, parent: Path) -> None:
    pack(run, parent / "artifact")
    pack(run, parent / "artifact", Precision.INT8_DYNAMIC)
    assert names(parent / "artifact" / "onnx") == {"model_quantized.onnx"}
    assert names(parent) == {"artifact"}


def test_what_somebody_put_beside_an_earlier_artifact_is_not_lost(run: RunFolder, parent: Path) -> None:
    pack(run, parent / "artifact")
    (parent / "artifact" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt is not a part of the artifact"):
        pack(run, parent / "artifact")
    assert (parent / "artifact" / "notes.txt").read_text() == "mine"


def test_new_folders_are_made_and_an_empty_one_is_used(run: RunFolder, parent: Path) -> None:
    pack(run, parent / "deep" / "artifact")
    (parent / "empty").mkdir()
    pack(run, parent / "empty")
    assert content(parent / "empty") == content(parent / "deep" / "artifact")


def test_what_is_no_artifact_is_not_touched(run: RunFolder, parent: Path) -> None:
    (parent / "thesis").mkdir()
    (parent / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else than an artifact"):
        pack(run, parent / "thesis")
    with pytest.raises(UserError, match="is a file"):
        pack(run, parent / "thesis" / "thesis.tex")
    with pytest.raises(UserError, match="cannot write"):
        pack(run, parent / "thesis" / "thesis.tex" / "artifact")
    assert content(parent) == {"thesis/thesis.tex": b"years of work"}


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("step", ["pack._golden", "pack.write_json", "pack._prove", "placing._swap"])
def test_an_interrupted_pack_leaves_what_was_there(
    run: RunFolder, packed: Path, parent: Path, monkeypatch: pytest.MonkeyPatch, step: str, earlier: bool
) -> None:
    if earlier:
        shutil.copytree(packed, parent / "artifact")
    before = content(parent)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"artifact.{step}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(run, parent / "artifact")
    assert content(parent) == before
    assert names(parent) == ({"artifact"} if earlier else set())


def test_an_earlier_artifact_returns_when_the_new_one_cannot_take_its_place(
    run: RunFolder, packed: Path, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(packed, parent / "artifact")
    rename = Path.rename

    def fail_for_the_new(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(UserError, match=r"cannot write .*artifact: Input/output error"):
        pack(run, parent / "artifact", Precision.INT8_DYNAMIC)
    assert content(parent / "artifact") == content(packed)
    assert names(parent) == {"artifact"}


def test_a_full_disk_is_told_and_leaves_nothing(run: RunFolder, parent: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from artifact.pack import pack
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
run, out = RunFolder(Path({str(run.directory)!r})), Path({str(parent / "artifact")!r})
try:
    pack(run, Precision.FP32, out, card=None, card_reason="")
except UserError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"cannot write {parent / 'artifact'}: File too large\n", done.stderr
    assert names(parent) == set()


@pytest.mark.parametrize("factor", [1.01, -1.0, float("nan")])
def test_a_graph_that_does_not_give_the_references_answers_is_not_packed(
    run: RunFolder, parent: Path, factor: float
) -> None:
    scale_logits(run.variant(Precision.FP32) / "model.onnx", factor)
    graph = reseal_variant(run)
    with pytest.raises(GateFailed, match=f"{graph} is off by"):
        pack(run, parent / "artifact")
    assert names(parent) == set()


def test_a_tokenizer_that_does_not_give_the_references_ids_is_not_packed(run: RunFolder, parent: Path) -> None:
    golden = json.loads(run.golden.read_text())
    golden["examples"][5]["text"] = "a film"
    edit_json(run.golden, **golden)
    with pytest.raises(GateFailed, match="example 5: its input_ids differ"):
        pack(run, parent / "artifact")
    assert names(parent) == set()


def test_a_graph_that_was_changed_after_its_export_is_refused(run: RunFolder, parent: Path) -> None:
    scale_logits(run.variant(Precision.FP32) / "model.onnx", 1.0001)
    with pytest.raises(UserError, match=r"model\.onnx is not the file that was exported"):
        pack(run, parent / "artifact")


@pytest.mark.parametrize(
    ("name", "keep_bytes", "message"),
    [
        ("variants/fp32/variant.json", None, "has no fp32 variant"),
        ("variants/fp32/variant.json", 300, r"variant\.json is damaged"),
        ("variants/fp32/model.onnx", None, r"model\.onnx is missing"),
        ("variants/fp32/model.onnx", 300, "is not the file that was exported"),
        ("serving.json", None, r"serving\.json does not exist"),
        ("serving.json", 30, r"serving\.json is damaged"),
        ("golden.json", None, r"golden\.json does not exist"),
        ("golden.json", 300, r"golden\.json is damaged"),
        ("checkpoint.json", None, "has no checkpoint"),
        ("checkpoint.json", 10, r"checkpoint\.json is damaged"),
    ],
)
def test_a_run_that_lacks_something_is_told_what(
    run: RunFolder, parent: Path, name: str, keep_bytes: int | None, message: str
) -> None:
    path = run.directory / name
    if keep_bytes is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(UserError, match=message) as caught:
        pack(run, parent / "artifact")
    assert caught.value.hint
    assert names(parent) == set()


def test_a_checkpoint_that_is_gone_is_told(run: RunFolder, parent: Path) -> None:
    run.link_checkpoint(parent / "gone")
    with pytest.raises(UserError, match="gone"):
        pack(run, parent / "artifact")
    assert names(parent) == set()


def test_a_variant_that_failed_its_export_is_not_packed(run: RunFolder, parent: Path) -> None:
    path = run.variant(Precision.FP32) / "variant.json"
    variant = json.loads(path.read_text())
    edit_json(path, parity=variant["parity"] | {"passed": False, "reasons": ["row 3 is off"]})
    with pytest.raises(GateFailed, match="did not pass its export: row 3 is off"):
        pack(run, parent / "artifact")


def test_items_that_cannot_be_prepared_are_refused(run: RunFolder, parent: Path) -> None:
    edit_json(run.serving, refused="its processor draws whiskers on cats")
    with pytest.raises(UserError, match="cannot be packed: its processor draws whiskers"):
        pack(run, parent / "artifact")


def test_the_model_card_says_what_it_is(run: RunFolder, tiny_checkpoint: Path, parent: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, run.own_checkpoint))
    (checkpoint / "README.md").write_text("---\nlicense: mit\nbase_model: someone/model\ntags:\n- x\n---\n# Mine\n")
    (checkpoint / "LICENSE").write_text("MIT")
    pack(run, parent / "artifact")
    card = (parent / "artifact" / "README.md").read_text()
    for words in (
        "pipeline_tag: text-classification",
        "license: mit",
        "`negative`, `positive`",
        "64 tokens",
        "predict.py",
    ):
        assert words in card
    assert "Base model: someone/model. Licence: mit." in card
    assert (parent / "artifact" / "LICENSE").read_text() == "MIT"


def test_the_dockerfile_installs_and_proves(run: RunFolder, parent: Path) -> None:
    artifact.pack.pack(
        run, Precision.FP32, parent / "artifact", card=None, card_reason="", extras=Extras(dockerfile=True)
    )
    lines = (parent / "artifact" / "Dockerfile").read_text().splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        *("FROM", "WORKDIR", "COPY", "RUN", "COPY", "RUN", "USER", "ENTRYPOINT")
    ]
    assert run_predict(parent / "artifact", "--selftest").returncode == 0


def test_a_triton_repository_has_the_graph_and_its_axes(run: RunFolder, parent: Path) -> None:
    out = parent / "repository"
    artifact.pack.pack(run, Precision.FP32, out, card=None, card_reason="", extras=Extras(layout=Layout.TRITON))
    files = content(parent / "repository")
    assert "repository/1/model.onnx" in files
    assert {"repository/config.pbtxt", "repository/tokenizer.json", "repository/steelyard.json"} <= set(files)
    config = files["repository/config.pbtxt"].decode()
    assert 'name: "repository"' in config
    assert '{ name: "input_ids", data_type: TYPE_INT64, dims: [ -1 ] }' in config
    assert '{ name: "logits", data_type: TYPE_FP32, dims: [ 2 ] }' in config
    assert config.count("{") == config.count("}")
    with pytest.raises(UserError, match="holds something else"):
        pack(run, parent / "repository")


def test_files_are_named_as_transformers_js_looks_for_them(packed: Path) -> None:
    """https://huggingface.co/docs/transformers.js/guides/dtypes: `onnx/model{suffix}.onnx` beside the configuration."""
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names(packed)
    config = json.loads((packed / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    suffixes = {precision.value: precision.file_suffix for precision in Precision if precision is not Precision.TF32}
    assert suffixes == {
        "fp32": "",
        "fp16": "_fp16",
        "bf16": "_bf16",  # it has none for it
        "int8-dynamic": "_quantized",
        "int8-static": "_int8",
        "int4": "_q4",
    }


def test_special_tokens_are_those_that_fastembed_looks_for(packed: Path) -> None:
    found = json.loads((packed / "special_tokens_map.json").read_text())
    assert {found[name] for name in ("pad_token", "cls_token", "sep_token", "unk_token")} == {
        *("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    }


def test_packages_are_pinned_by_their_hashes(
    run: RunFolder, parent: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What pip says is written down; its own report, shortened, stands in for a network."""
    hashes = {"sha256": "0" * 64}
    item = {
        "metadata": {"name": "numpy", "version": "2.4.6"},
        "download_info": {"archive_info": {"hashes": hashes}},
    }
    environment = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
    asked = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps({"install": [item], "environment": environment}), "")

    monkeypatch.setattr("artifact.lock.subprocess.run", pip)
    artifact.pack.pack(run, Precision.FP32, parent / "artifact", card=None, card_reason="", extras=Extras(hashes=True))
    lines = (parent / "artifact" / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith(
        "# Packages for Python 3.11 on linux x86_64; elsewhere, install without hashes: onnxruntime=="
    )
    assert lines[1:] == [f"numpy==2.4.6 --hash=sha256:{'0' * 64}"]
    assert {"--dry-run", "--ignore-installed"} <= set(asked[0])


def test_pip_without_an_answer_is_told(run: RunFolder, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")

    monkeypatch.setattr("artifact.lock.subprocess.run", pip)
    with pytest.raises(UserError, match=r"pip cannot resolve .*: ERROR: no network"):
        artifact.pack.pack(
            run, Precision.FP32, parent / "artifact", card=None, card_reason="", extras=Extras(hashes=True)
        )
    assert names(parent) == set()
