"""`variant.json`: what is known of one derived ONNX graph."""

from pathlib import Path

import msgspec

from artifact.precision import Precision
from artifact.predict import ArtifactError, inside
from artifact.records import read_json
from artifact.run_folder import RunFolder
from errors import UserError

SCHEMA_VERSION = 1


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: a name for each axis that may vary, a number for each that may not."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far a variant's logits are from PyTorch's, on real texts and on a grid of shapes.

    Errors are absolute and in units of the reference's logits; `scale` is the largest absolute reference logit on the
    texts. `flips` are texts whose best label differs, `flip_margins` the reference's own lead of its best label over
    the second there (a small one is a near-tie). `shapes` are the (batch, sequence) pairs that ran.
    """

    texts: int
    scale: float
    max_error: float
    p99_error: float
    cosine: float
    agreement_fraction: float
    flips: int
    flip_margins: tuple[float, ...]
    shapes: tuple[tuple[int, int], ...]
    shapes_max_error: float
    passed: bool
    reasons: tuple[str, ...]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A graph at one precision, the checkpoint it came from and how well it agrees. Paths are relative to its folder.

    `quantized_weights_fraction` is the share of weight elements held in 8 bits or fewer; `golden_max_error` the largest
    absolute error of a logit on the run's golden examples, each answered alone.
    """

    schema_version: int
    fingerprint: str
    checkpoint_sha256: str
    precision: Precision
    file: str
    size_bytes: int
    sha256: str
    opset: int
    ir_version: int
    domains: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    operators: dict[str, int]
    weight_elements: dict[str, int]
    quantized_weights_fraction: float
    parity: Parity
    golden_max_error: float
    seconds: float
    versions: dict[str, str]


def read_variant(run: RunFolder, precision: Precision) -> tuple[Variant, Path]:
    """A run's variant and the path of its graph.

    Raises `UserError` when that precision was not exported or its file is gone.
    """
    folder = run.variant(precision)
    if not (folder / "variant.json").is_file():
        raise UserError(
            f"{run.directory} has no {precision} variant",
            f"make it with: steelyard export {run.directory} --precisions {precision} --out {run.directory}",
        )
    variant = read_json(folder / "variant.json", Variant)
    try:
        return variant, inside(folder, variant.file)
    except ArtifactError as error:
        raise UserError(str(error), "export it again") from error
