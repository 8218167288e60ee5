"""Make the folder that is deployed: ONNX, tokenizer, manifest, golden examples and one `predict.py`."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from artifact.golden import Golden, largest_error
from artifact.labels import read_activation, read_labels
from artifact.manifest import Card, Manifest
from artifact.precision import Precision
from artifact.predict import MANIFEST, SCHEMA_VERSION, ArtifactError, Predictor, usable_cores
from artifact.records import cannot_write, read_if_present, read_json, sha256_file, umask, write_bytes, write_json
from artifact.run_folder import RunFolder
from artifact.session import SessionConfig, open_session
from artifact.task import Task
from artifact.tokenizer import plain_tokenizer_json, read_limits
from artifact.variant import Variant, is_whole, read_variant
from errors import GateFailed, UserError

RUNTIME_PACKAGES = ("onnxruntime", "numpy", "tokenizers")
COPIED = ("config.json", "tokenizer_config.json", "special_tokens_map.json")


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """What `pack` made. `size_bytes` is the sum of all files."""

    directory: str
    precision: Precision
    size_bytes: int
    files: int


def pack(
    run: RunFolder,
    precision: Precision,
    out: Path,
    *,
    card: Card | None,
    card_reason: str | None,
    session: SessionConfig | None = None,
) -> Packed:
    """Pack one variant of a run into the folder `out`, then load it and run its own self-test.

    The folder appears whole or not at all; an artifact that is already there is replaced. Raises `UserError` when
    something it needs is missing or `out` holds anything but an artifact, `GateFailed` when the packed model does not
    give the reference's answers.
    """
    _check_target(out)
    variant, graph = read_variant(run, precision)
    if not is_whole(variant, graph.parent):
        raise UserError(f"{graph} is not the file that was exported", "export it again")
    if variant.golden_max_error is None:
        raise UserError(
            f"{graph} is for {variant.task} on other inputs than single texts, and such models cannot be packed yet",
            "serve the graph with onnxruntime; variant.json describes its inputs and outputs",
        )
    checkpoint = run.checkpoint
    if checkpoint is None:
        raise UserError(
            f"{run.directory} has no checkpoint, so its tokenizer is unknown", "export again from the checkpoint"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        _fill(temporary, run, variant, graph, checkpoint, card, card_reason, session or SessionConfig())
        _prove(temporary)
        temporary.chmod(0o777 & ~umask())
        _swap(temporary, out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files = [path for path in out.rglob("*") if path.is_file()]
    return Packed(
        directory=str(out),
        precision=precision,
        size_bytes=sum(path.stat().st_size for path in files),
        files=len(files),
    )


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file", "name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise UserError(f"--out {out} holds something else than an artifact", "name a new or empty folder")
    earlier = read_if_present(out / MANIFEST, Manifest)
    ours = {MANIFEST, *(earlier.sha256 if earlier else ())}
    names = (path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file())
    foreign = [name for name in names if name.as_posix() not in ours and "__pycache__" not in name.parts]
    if foreign:
        raise UserError(
            f"{out / foreign[0]} is not a part of the artifact and would be lost", "move it elsewhere first"
        )


def _fill(
    folder: Path,
    run: RunFolder,
    variant: Variant,
    graph: Path,
    checkpoint: Path,
    card: Card | None,
    card_reason: str | None,
    session: SessionConfig,
) -> None:
    model_file = f"onnx/model{variant.precision.file_suffix}.onnx"
    (folder / "onnx").mkdir()
    shutil.copyfile(graph, folder / model_file)
    for name in variant.files.keys() - {variant.file}:
        shutil.copyfile(graph.with_name(name), folder / "onnx" / name)
    write_bytes(folder / "tokenizer.json", plain_tokenizer_json(checkpoint).encode())
    for name in COPIED:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
    shutil.copyfile(Path(__file__).with_name("predict.py"), folder / "predict.py")
    versions = {name: version(name) for name in RUNTIME_PACKAGES}
    requirements = "".join(f"{name}=={number}\n" for name, number in versions.items())
    write_bytes(folder / "requirements.txt", requirements.encode())
    write_json(folder / "golden.json", _golden(run, variant, graph, session))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        task=Task.TEXT_CLASSIFICATION,
        labels=read_labels(checkpoint),
        activation=read_activation(checkpoint),
        precision=variant.precision,
        model_file=model_file,
        limits=read_limits(checkpoint),
        session=session,
        opset=variant.opset,
        ir_version=variant.ir_version,
        domains=variant.domains,
        minimum_onnxruntime=variant.minimum_onnxruntime,
        card=card,
        card_reason=card_reason,
        versions=variant.versions,
        sha256={
            path.relative_to(folder).as_posix(): sha256_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )
    write_json(folder / MANIFEST, manifest)


def _golden(run: RunFolder, variant: Variant, graph: Path, session: SessionConfig) -> Golden:
    """The run's reference examples with a tolerance for this variant.

    The tolerance is twice the largest error on these very examples (other CPUs round differently), and at least 0.01 %
    of the logits' scale. Raises `GateFailed` when that error is beyond what the export saw.
    """
    golden = read_json(run.golden, Golden)
    if golden.checkpoint_sha256 != variant.checkpoint_sha256:
        raise UserError(f"{run.golden} is of another state of the checkpoint than {graph}", "export again")
    scale = variant.parity.scales["logits"]
    least = 1e-4 * scale
    opened = open_session(graph, provider="CPUExecutionProvider", threads=usable_cores(), config=session)
    names = {spec.name for spec in variant.inputs}
    observed = largest_error(lambda batch: np.asarray(opened.run(["logits"], dict(batch))[0]), golden, names)
    seen = max(variant.parity.max_error_fraction * scale, variant.golden_max_error or 0.0)
    if not observed <= max(1.5 * seen, least):
        raise GateFailed(
            f"{graph} is off by {observed:.3g} on the golden examples; its export saw at most {seen:.3g}",
            "export it again on this machine",
        )
    return msgspec.structs.replace(golden, tolerance=max(2 * observed, least))


def _prove(folder: Path) -> None:
    try:
        problems = Predictor.open(folder).selftest()
    except ArtifactError as error:
        raise GateFailed(f"the packed model does not load: {error}") from error
    if problems:
        raise GateFailed(f"the packed model differs from the reference: {problems[0]}", "pack another candidate")


def _swap(temporary: Path, out: Path) -> None:
    """Put the finished folder in place; an earlier artifact is moved aside first and removed last."""
    if not out.exists():
        temporary.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    earlier = old / "artifact"
    try:
        out.rename(earlier)
        temporary.rename(out)
    except BaseException:
        if earlier.exists():
            earlier.rename(out)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
