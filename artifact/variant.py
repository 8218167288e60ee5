"""`variant.json`: what is known of one derived ONNX graph."""

from pathlib import Path

import msgspec

from artifact.pooling import Pooling
from artifact.precision import Precision
from artifact.predict.folder import inside
from artifact.records import read_if_present, read_json, sha256_file
from artifact.run_folder import RunFolder
from artifact.task import WRITES, Task
from errors import GateFailed, UserError

SCHEMA_VERSION = 3


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: a name for each axis that may vary, a number for each that may not."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """An example whose answer is not the reference's. `margin` is the reference's own lead of its answer over the next,
    as a share of the output's scale; `near_tie` says that it is small."""

    example: str
    margin_fraction: float
    near_tie: bool


class Invariance(msgspec.Struct, frozen=True, kw_only=True):
    """How much an answer depends on what shares its batch and on padding, as shares of the output's scale.

    `alone` and `padded` compare the variant with itself, batched and unpadded; `left` compares it with PyTorch on the
    same rows padded at their start. What a model has no padding for is `None`.
    """

    examples: int
    alone_error_fraction: float
    alone_changed: int
    padded_error_fraction: float | None
    left_error_fraction: float | None


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far a variant's outputs are from PyTorch's, on real inputs and on a grid of shapes.

    Errors are shares of each output's `scales`, the largest absolute reference value. Answers agree where the largest
    value of a choice is the same; `agreement_fraction` is `None` where the task has no choice. `shapes` are the axis
    sizes that ran. `emulated` means that half arithmetic was emulated, because a CPU hides its overflow.
    """

    inputs: str
    examples: int
    scales: dict[str, float]
    max_error_fraction: float
    p99_error_fraction: float
    cosine: float
    agreement_fraction: float | None
    flips: tuple[Flip, ...]
    flipped: int
    near_ties: int
    shapes: tuple[str, ...]
    shapes_error_fraction: float
    invariance: Invariance | None
    emulated: bool
    passed: bool
    reasons: tuple[str, ...]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """The task's metric against the reference's on the same examples, with a paired 95 % interval of the difference.

    `floor` is the least that passes; a drop larger than `excluded_drop` is excluded by this many examples.
    """

    name: str
    examples: int
    value: float
    reference: float
    difference_low: float
    difference_high: float
    floor: float
    excluded_drop: float
    passed: bool


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A layer or node that stays in fp32, and why."""

    name: str
    why: str


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much is in fewer bits: layers, and the shares of all weights and of all layers' multiply-adds."""

    layers: int
    of_layers: int
    weights_fraction: float
    macs_fraction: float


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a variant was derived; what does not apply is `None` or empty.

    `calibrations` are the metric, or else the negative error, of each way that was tried on training examples.
    `chosen_on` says which examples decided what stays in fp32, and which channels stand out: `divided_channels` of what
    products read are divided before they are rounded.
    """

    profile: str
    chosen_on: str | None = None
    target: str | None = None
    weights: str | None = None
    kept: tuple[Kept, ...] = ()
    divided_channels: int = 0
    calibration: str | None = None
    calibration_examples: int | None = None
    calibrations: dict[str, float] = {}
    block_size: int | None = None
    accuracy_level: int | None = None
    weights_overflowing: int | None = None
    weights_vanishing: int | None = None


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an engine runs the file: `None` when it could not be tried here."""

    engine: str
    runs: bool | None
    reason: str | None = None


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of every derived graph: the checkpoint that it came from, and its files. Paths are relative to its
    folder.

    `files` has the sha256 of the graph and, where its weights lie in a second file, of that one.
    """

    schema_version: int
    fingerprint: str
    checkpoint_sha256: str
    task: Task
    precision: Precision
    file: str
    size_bytes: int
    files: dict[str, str]
    opset: int
    minimum_onnxruntime: str
    operators: dict[str, int]
    seconds_s: float
    versions: dict[str, str]


class Variant(Derived, frozen=True, kw_only=True):
    """A graph at one precision, and how well it agrees. `fused` counts the
    operators that stand for several; `unfused` those that could have been fused and were not.
    `golden_error_fraction` is the largest error on the run's golden examples, each answered alone, as a share of the
    output's scale; `None` where there are none. `pooling` is what makes one vector of each text inside of the graph.
    """

    ir_version: int
    domains: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    fused: dict[str, int]
    unfused: dict[str, int]
    weight_elements: dict[str, int]
    coverage: Coverage | None
    recipe: Recipe
    parity: Parity
    metric: Metric | None
    support: tuple[Support, ...]
    golden_error_fraction: float | None
    pooling: Pooling | None = None

    @property
    def judged_on(self) -> tuple[str, int]:
        """Which examples, and how many."""
        return self.parity.inputs, self.parity.examples

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a gate failed."""
        if self.metric is None or self.metric.passed:
            return self.parity.reasons
        metric = self.metric
        return (*self.parity.reasons, f"{metric.name} {metric.value:.4f} is below the floor {metric.floor:.4f}")


def is_whole(variant: Derived, folder: Path) -> bool:
    """Whether every file of a variant is in `folder` as it was written."""
    return all((folder / name).is_file() and sha256_file(folder / name) == sha for name, sha in variant.files.items())


def variant_file(run: RunFolder, precision: Precision) -> Path:
    """The `variant.json` of a precision; `UserError` when that was not exported."""
    path = run.variant(precision) / "variant.json"
    if not path.is_file():
        raise UserError(
            f"{run.directory} has no {precision} variant",
            f"make it with: steelyard export {run.directory} --precisions {precision} --out {run.directory}",
        )
    return path


def graph_of(path: Path, file: str) -> Path:
    """The graph that a `variant.json` names; `UserError` when it is gone or lies elsewhere."""
    try:
        return inside(path.parent, file)
    except GateFailed as error:
        raise UserError(error.message, "export it again") from error


class _Task(msgspec.Struct, frozen=True):
    task: Task


def task_of(run: RunFolder) -> Task | None:
    """The task of a run's variants; `None` where there is none yet."""
    found = (read_if_present(run.variant(precision) / "variant.json", _Task) for precision in Precision)
    return next((variant.task for variant in found if variant), None)


def read_variant(run: RunFolder, precision: Precision) -> tuple[Variant, Path]:
    """A run's variant of a model that answers in one pass, and the path of its graph.

    Raises `UserError` when that precision was not exported, its file is gone, or it is of a language model.
    """
    path = variant_file(run, precision)
    if read_json(path, _Task).task in WRITES:
        raise UserError(
            f"{run.directory} holds a language model, which does not answer in one pass", "name another run"
        )
    variant = read_json(path, Variant)
    return variant, graph_of(path, variant.file)
