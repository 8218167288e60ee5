"""What MLPerf LoadGen is told to send, and what it saw (light: no engine, no numpy)."""

from collections.abc import Mapping
from enum import StrEnum
from math import ceil, sqrt

import msgspec

from errors import UserError
from measure.percentiles import least_samples

MULTI_STREAM_SAMPLES = 8
"""Samples of a query in the multi-stream scenario."""

PATIENCE = 6
"""A scenario that lacks queries runs on for so many times its duration, and no longer."""

MOST_QUERIES = 1_000_000
"""LoadGen makes all queries of a test before it begins."""


class Scenario(StrEnum):
    """How queries come. Single-stream and multi-stream: one sample or eight together, the next when the last is
    answered. Offline: all at once. Server: one sample each, at random times, whether the last is answered or not."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"
    SERVER = "server"


QUANTILES: Mapping[Scenario, float] = {
    Scenario.SINGLE_STREAM: 0.9,
    Scenario.MULTI_STREAM: 0.99,
    Scenario.SERVER: 0.99,
}
"""The quantile of the latencies that MLPerf judges a scenario by; offline is judged by its throughput."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """One test: it ends when `duration_s` and `least_queries` are both reached, at the latest after `longest_s`.

    `max_batch` is how many waiting queries of the server scenario are run together. Its queries come `rate_per_s` times
    a second on average; `bound_s` is what 99 % of the latencies must keep.
    """

    scenario: Scenario
    duration_s: float
    max_batch: int
    rate_per_s: float | None = None
    bound_s: float | None = None

    @property
    def longest_s(self) -> float:
        return PATIENCE * self.duration_s

    @property
    def least_queries(self) -> int:
        """As many as MLPerf's early stopping needs to say anything of the scenario's quantile."""
        quantile = QUANTILES.get(self.scenario)
        return 1 if quantile is None else least_samples(quantile)

    @property
    def most_waiting(self) -> int | None:
        """Unanswered queries of the server scenario at which it is decided: those that came within one bound, with
        five standard deviations of their number, may be in time; if 1 % of all are waiting besides, p99 is late."""
        if self.rate_per_s is None or self.bound_s is None:
            return None
        within = self.rate_per_s * self.bound_s
        every = max(self.rate_per_s * self.duration_s, self.least_queries)
        return ceil(within + 5 * sqrt(within) + (1 - QUANTILES[self.scenario]) * every) + self.max_batch

    @property
    def batching(self) -> str:
        """How samples become batches, in words."""
        return {
            Scenario.SINGLE_STREAM: "one sample at a time, not padded",
            Scenario.MULTI_STREAM: f"the {MULTI_STREAM_SAMPLES} samples of a query together, padded to the longest",
            Scenario.OFFLINE: "sorted by length into batches as an artifact serves them",
            Scenario.SERVER: f"those that wait when the engine is free, at most {self.max_batch}, padded to the "
            "longest",
        }[self.scenario]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What LoadGen says of a test. `words` are its own lines, from "Result is" on, and the errors of its detailed log.

    `bound_met` is `None` where the scenario has no bound. `samples_per_s` is what it completed, `None` where LoadGen
    does not tell.
    """

    valid: bool
    bound_met: bool | None
    duration_met: bool
    queries_met: bool
    early_stopping_met: bool
    queries: int
    samples_per_s: float | None
    words: tuple[str, ...]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `latencies_s` are seconds from when each query was due to its answer, in the order they were due; those
    of samples in the offline scenario.

    `issue_delays_s` are seconds from when each was due until LoadGen's own thread got to issue it. `batches` counts the
    calls of the engine by their rows. `rehearsal_s` are the untimed calls before.
    """

    judgement: Judgement
    latencies_s: tuple[float, ...]
    issue_delays_s: tuple[float, ...]
    batches: dict[int, int]
    rehearsal_s: tuple[float, ...]


def parse_scenarios(text: str) -> tuple[Scenario, ...]:
    """Read `--scenarios`; `UserError` lists the known ones."""
    known = {member.value: member for member in Scenario}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"--scenarios has '{name}'", f"known are: {', '.join(known)}")
    return tuple(dict.fromkeys(known[name] for name in names))
