"""`steelyard.json`: what an artifact says of itself, and the evidence it carries."""

import msgspec

from artifact.precision import Precision
from artifact.session import SessionConfig
from artifact.task import Activation, Task
from artifact.tokenizer import TextLimits


class CardFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Speed on one workload: median seconds of a batch, and the ratio to the baseline (above 1: faster)."""

    workload: str
    median_s: float
    ratio: float
    ratio_low: float | None
    ratio_high: float | None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The benchmark card: the figures that this artifact was chosen by, and the machine they were measured on."""

    candidate: str
    baseline: str
    figures: tuple[CardFigure, ...]
    accuracy_fraction: float | None
    reference_accuracy_fraction: float | None
    agreement_fraction: float | None
    examples: int | None
    cold_start_s: float | None
    memory_uss_bytes: int | None
    threads: int
    cpu_model: str
    cpu_features: tuple[str, ...]
    measured_utc: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest. `sha256` covers every file but the manifest itself; `card` is null with `card_reason` when the
    variant was packed without having been measured."""

    schema_version: int
    task: Task
    labels: tuple[str, ...]
    activation: Activation
    precision: Precision
    model_file: str
    limits: TextLimits
    session: SessionConfig
    opset: int
    ir_version: int
    domains: tuple[str, ...]
    minimum_onnxruntime: str
    card: Card | None
    card_reason: str | None
    versions: dict[str, str]
    sha256: dict[str, str]
