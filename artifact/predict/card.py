"""The benchmark card: what an artifact was chosen by."""

from dataclasses import dataclass

from artifact.precision import Precision


@dataclass(frozen=True, kw_only=True)
class CardFigure:
    """Speed on one workload: median seconds of a batch, and the ratio to the baseline (above 1: faster)."""

    workload: str
    median_s: float
    ratio: float
    ratio_low: float | None
    ratio_high: float | None

    def __post_init__(self) -> None:
        if self.median_s <= 0:
            raise ValueError("a figure takes no time")


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another precision of the same model that passed its gate, and its speed against the baseline."""

    candidate: str
    precision: Precision
    ratio: float
    accuracy_fraction: float | None


@dataclass(frozen=True, kw_only=True)
class Card:
    """The benchmark card: the figures that this artifact was chosen by, and the machine they were measured on.

    `memory_bytes` is the resident set above that of a process without an engine; older cards have `memory_uss_bytes`
    in its place, which depends on who maps the same libraries, and is compared with nothing.
    """

    candidate: str
    baseline: str
    figures: tuple[CardFigure, ...]
    accuracy_fraction: float | None
    reference_accuracy_fraction: float | None
    agreement_fraction: float | None
    examples: int | None
    cold_start_s: float | None
    threads: int
    cpu_model: str
    cpu_features: tuple[str, ...]
    measured_utc: str
    rivals: tuple[Rival, ...] = ()
    memory_bytes: int | None = None
    memory_uss_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 10_000:
            raise ValueError(f"it was measured on {self.threads} threads")
