"""What the user asks of the winner: limits that it must keep, and what it is best at."""

from enum import StrEnum

import msgspec

ACCURACY_DROP = 0.01
"""Share of the reference's accuracy that may be lost (MLPerf's usual target keeps 99 %)."""


class Objective(StrEnum):
    """What the best candidate is best at: speed over all workloads, over those of the smallest batch (`latency`), over
    those of the largest (`throughput`), or the size of its file."""

    BALANCED = "balanced"
    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SIZE = "size"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and the objective; `None` is no limit.

    `max_accuracy_drop` is a share of the reference's accuracy. `max_p95_s` holds for a call of every workload of the
    objective, `max_memory_bytes` for the memory of the process above its baseline (RSS), `max_size_bytes` for the
    weight files.
    """

    objective: Objective = Objective.BALANCED
    max_accuracy_drop: float = ACCURACY_DROP
    max_p95_s: float | None = None
    max_memory_bytes: int | None = None
    max_size_bytes: int | None = None
