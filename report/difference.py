"""What is said of a later run beside an earlier one."""

from collections.abc import Set
from enum import StrEnum

import msgspec

from measure.statistics import Decision
from report.changes import Change
from report.verdict import Ratio

SCHEMA_VERSION = 1


class Outcome(StrEnum):
    """Where something lies beside its bound. `regressed`: beyond it; `improved`: as far beyond on the other side;
    `within`: its interval shows that it is not beyond; `yardstick`: the others are judged by it; `not judged`: shown
    only."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    WITHIN = "within"
    INCONCLUSIVE = "inconclusive"
    YARDSTICK = "yardstick"
    NOT_JUDGED = "not judged"


class Basis(StrEnum):
    """What speed is judged by: time as a multiple of the anchor's in the same run, seconds, or nothing."""

    RELATIVE = "time relative to the anchor"
    SECONDS = "seconds"
    NONE = "nothing"


class Pairing(StrEnum):
    """How two accuracies on the same examples are compared. `same answers`: all that is recorded of them is equal, to
    the last digit of the largest error; `by the reference`: at most so many pairs differ as either has wins and losses
    against it; `none`: as two shares of unrelated examples."""

    SAME = "same answers"
    REFERENCE = "by the reference"
    NONE = "none"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much more time a batch may take, and how much accuracy may be lost, as shares of the base's."""

    slowdown_fraction: float = 0.05
    accuracy_drop_fraction: float = 0.01


class Factor(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as long the later run takes, with its 95 % interval; no ends where a run has fewer than two
    processes."""

    factor: float
    low: float | None
    high: float | None


class SpeedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on one workload.

    Seconds of a batch are the geometric mean over the processes of the median of each. `seconds` compares them, and is
    `None` where machines or threads differ; `relative` compares them as multiples of the anchor's, and is `None` for
    the anchor and where the anchors are two candidates. `p_value` is that of "slower by no more than the bound" on this
    `basis`, adjusted for everything that was tested; `None` where this was not.
    """

    workload: str
    base_batch_s: float
    later_batch_s: float
    base_speed: Ratio | None
    later_speed: Ratio | None
    seconds: Factor | None
    relative: Factor | None
    basis: Basis
    outcome: Outcome
    p_value: float | None

    @property
    def judged(self) -> Factor | None:
        """What `outcome` is about; what there is to show where nothing is judged."""
        return self.seconds if self.basis is Basis.SECONDS else self.relative or self.seconds


class AccuracyChange(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy with one way of batching (`served`, or a batch size): the way whose accuracy fell most.

    The interval has no ends, and `pairing` says nothing, where the data differ. `not_finite` of the later answers hold
    a NaN or an infinity.
    """

    batching: str
    base_fraction: float
    later_fraction: float
    difference: float
    low: float | None
    high: float | None
    pairing: Pairing
    not_finite: int
    outcome: Outcome


class CandidateChange(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that both runs measured; its costs as (base, later)."""

    name: str
    speeds: tuple[SpeedChange, ...]
    accuracy: AccuracyChange | None
    cold_start_s: tuple[float | None, float | None]
    memory_bytes: tuple[int | None, int | None]
    model_bytes: tuple[int | None, int | None]


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that the base measured and the later run did not, or not to the end; `failed` if it tried."""

    name: str
    reason: str
    failed: bool


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A later run beside the base.

    `anchor` is that of both, `None` where they differ; `reason` is why speed is judged as `basis` says. The controls
    are what the A/A control of each run says. `workloads_lost` are those of the base that the later run does not have,
    or has with other shapes. `measure` is what accuracy is called in the base.
    """

    base: str
    later: str
    measure: str
    anchor: str | None
    basis: Basis
    reason: str
    changes: tuple[Change, ...]
    candidates: tuple[CandidateChange, ...]
    lost: tuple[Lost, ...]
    added: tuple[str, ...]
    workloads_lost: tuple[str, ...]
    base_control: Decision | None
    later_control: Decision | None
    warnings: tuple[str, ...]

    @property
    def regressions(self) -> tuple[str, ...]:
        """What regressed, such as `ort-cpu/fp32 (8×128, accuracy)`."""
        failed = [f"{item.name} (failed)" for item in self.lost if item.failed]
        return (*self._named({Outcome.REGRESSED}), *failed)

    @property
    def not_shown(self) -> tuple[str, ...]:
        """What did not regress, but was not shown to be within the bounds either."""
        return (
            *self._named({Outcome.INCONCLUSIVE, Outcome.NOT_JUDGED}),
            *(f"{item.name} ({item.reason})" for item in self.lost if not item.failed),
            *(f"everything at {name} (not measured)" for name in self.workloads_lost),
        )

    @property
    def is_judged(self) -> bool:
        """Whether anything was held against a bound."""
        every = [speed.outcome for item in self.candidates for speed in item.speeds]
        every += [item.accuracy.outcome for item in self.candidates if item.accuracy]
        return bool(self.regressions) or not {*every} <= {Outcome.YARDSTICK, Outcome.NOT_JUDGED}

    def _named(self, outcomes: Set[Outcome]) -> list[str]:
        """The candidates that came out so, each with where."""
        found = []
        for item in self.candidates:
            places = [speed.workload for speed in item.speeds if speed.outcome in outcomes]
            places += [self.measure] if item.accuracy and item.accuracy.outcome in outcomes else []
            found += [f"{item.name} ({', '.join(places)})"] if places else []
        return found


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """Every later run beside the base. The p-values are adjusted for the `tests` of all of them together."""

    schema_version: int
    bounds: Bounds
    tests: int
    differences: tuple[Difference, ...]
    regressions: tuple[str, ...]
    not_shown: tuple[str, ...]
