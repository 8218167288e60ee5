"""`verdict.json`: which candidate to ship, how sure that is, and why not the others."""

from enum import StrEnum
from math import sqrt

import msgspec

from artifact.judged import Judged
from measure.core_distance import CoreDistance
from measure.machine import Machine
from measure.records import Overhead, Role
from measure.statistics import Decision
from measure.workload import Phase
from report.policy import Policy
from runtimes.base import Executed, RuntimeInfo

SCHEMA_VERSION = 2


class Gate(StrEnum):
    """The rule on quality. `passed_unsure`: above the floor on these examples, but they are too few to exclude less."""

    PASSED = "passed"
    PASSED_UNSURE = "passed, not certain"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Speed as a multiple of the baseline's, with its 95 % interval and what that says.

    `more_processes` would decide it, if they scatter as those before: 0 where it is decided, `None` where that cannot
    be said.
    """

    ratio: float
    low: float | None
    high: float | None
    decision: Decision
    more_processes: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether it has an interval: of a single process it has none, and nothing can be made of it."""
        return self.low is not None

    @property
    def is_close(self) -> bool:
        """Whether two speeds cannot be told apart by more than 2 %; of what is not known that cannot be said."""
        return self.is_known and self.decision in (Decision.EQUIVALENT, Decision.INCONCLUSIVE)

    @property
    def half_width_fraction(self) -> float | None:
        """How far the interval reaches to either side, by a factor of 1 + this; `None` where there is none."""
        return sqrt(self.high / self.low) - 1 if self.low and self.high else None


class TextResult(msgspec.Struct, frozen=True, kw_only=True):
    """From raw text to label: texts a second where the stages take turns and where they overlap; `None` where that was
    not asked for.

    `tokenise_fraction` is the tokenizer's share of the time where they take turns. `gain` is the speed of overlapping
    as a multiple of taking turns, paired by round within each process.
    """

    texts_per_s: float | None
    tokenise_fraction: float | None
    overlapped_texts_per_s: float | None
    gain: Ratio | None


class WorkloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One workload: median seconds of a batch over all processes, and the paired ratio.

    `speed` is `None` for the baseline, and where nothing ran beside it. `p90_s`, `p95_s` and `p99_s` bound the slowest
    calls of all processes from above with 99 % certainty (MLPerf's early stopping); `None` where there are too few, or
    where a sample is no call. `energy_j` is what the processor took for a batch, the median over all processes; `None`
    where it has no counter that can be read. `device_s` is the median by the clock of the device alone, `None` where
    the host is the device. `tokens` are those that a language model reads or writes in one sample, and `phase` says
    which of the two.
    """

    workload: str
    batch_s: float
    samples: int
    speed: Ratio | None
    p90_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    energy_j: float | None = None
    device_s: float | None = None
    tokens: int | None = None
    phase: Phase | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens that a language model reads or writes in a second; `None` of other models."""
        return self.tokens / self.batch_s if self.tokens else None

    @property
    def overhead_fraction(self) -> float | None:
        """Share of the time from host to host that is copying and overhead; `None` where the host is the device."""
        return None if self.device_s is None else max(0.0, 1 - self.device_s / self.batch_s)


class QualityResult(msgspec.Struct, frozen=True, kw_only=True):
    """The worst of the ways to batch that were scored: `batching` is `served` (by length, as an artifact does) or a
    batch size. `flips` counts for each way the answers that differ from the reference's. Of a language model an example
    is a token that comes next, and only there `perplexity` is known. Where several examples are of one text, `texts`
    are how many there are. `neighbours_fraction` is the least of all ways, and only known of vectors."""

    gate: Gate
    reference: str
    batching: str
    examples: int
    accuracy_fraction: float
    floor_fraction: float
    difference: float
    difference_low: float
    difference_high: float
    agreement_fraction: float
    flips: dict[str, int]
    not_finite: int = 0
    perplexity: float | None = None
    reference_perplexity: float | None = None
    neighbours_fraction: float | None = None
    texts: int | None = None


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """How unevenly the baseline ran. `call_fraction`: the spread of calls within a block (median absolute deviation
    over the median, times 1.48, as a coefficient of variation). `drift_fraction`: how much more time it took in the
    last process than in the first; `None` for a single process. `cores`: how far apart CPUs lay before and after the
    blocks of all candidates; `None` where that was not seen."""

    call_fraction: float
    drift_fraction: float | None
    cores: CoreDistance | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one candidate.

    `reason` says why it cannot be recommended, or was not measured; `lost` why another one is recommended although this
    one could be. `overall` is over the workloads of the policy's objective. `cold_starts_s` has one for each process.
    `first_run_s` is what its first call took, `process_s` what one more process takes, both medians. `step_bytes` are
    the weights that a language model needs for each token it writes, where that is known.
    """

    name: str
    runtime: str
    precision: str
    role: Role
    measured: bool
    reason: str | None
    remedy: str | None
    portable: bool = False
    processes: int = 0
    workloads: tuple[WorkloadResult, ...] = ()
    overall: Ratio | None = None
    from_text: TextResult | None = None
    quality: QualityResult | None = None
    lost: str | None = None
    cold_start_s: float | None = None
    cold_starts_s: tuple[float, ...] = ()
    first_run_s: float | None = None
    process_s: float | None = None
    memory_bytes: int | None = None
    memory_pss_bytes: int | None = None
    device_bytes: int | None = None
    model_bytes: int | None = None
    step_bytes: int | None = None
    model_sha256: str | None = None
    engine: str | None = None
    info: RuntimeInfo | None = None
    executed: Executed | None = None

    def speed_at(self, workload: str) -> float | None:
        """Speed in a workload as a multiple of the baseline's, whose own is 1; `None` where nothing ran beside it."""
        if self.role is Role.ANCHOR:
            return 1.0
        return next((item.speed.ratio for item in self.workloads if item.workload == workload and item.speed), None)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The newest question's answer.

    `fastest` is the best by the policy, `deployable` the best that packs for CPUs without torch. `close` are other
    candidates that the policy allows and whose speed cannot be told from the deployable one's. `pareto` are those
    that the policy allows and that none of these beats in both speed and accuracy. `tokenizer_texts_per_s` is what
    the tokenizer can do with no engine beside it. `overhead` is what a language model's tokens take besides any engine;
    of other models `judged` says what is right or wrong. A model may be one that `sees` pictures, or `hears`
    recordings.
    """

    schema_version: int
    baseline: str | None
    fastest: str | None
    deployable: str | None
    close: tuple[str, ...]
    pareto: tuple[str, ...]
    control: Decision | None
    noise: Noise | None
    policy: Policy
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    machine: Machine
    threads: int
    budget: str
    replicates: int
    rounds: tuple[int, int]
    data: str
    examples: int
    sessions: int
    harness_floor_s: float | None
    measured_utc: str
    versions: dict[str, str]
    tokenizer_texts_per_s: float | None = None
    overhead: Overhead | None = None
    judged: Judged = Judged.TEXT
    sees: bool = False
    hears: bool = False

    @property
    def counted(self) -> str:
        """What accuracy is a share of."""
        return "tokens" if self.writes else self.judged.counted

    @property
    def measure(self) -> str:
        """What accuracy is called."""
        return "accuracy" if self.writes else self.judged.measure

    @property
    def writes(self) -> bool:
        """Whether it is about a language model."""
        return any(result.tokens for row in self.rows for result in row.workloads)
