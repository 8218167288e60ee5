"""How much is measured (light: no engine, no numpy)."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Budget(StrEnum):
    """How much time a comparison may take: a minute that only shows that everything runs, minutes, a quarter of an
    hour, hours."""

    SMOKE = "smoke"
    QUICK = "quick"
    STANDARD = "standard"
    RIGOROUS = "rigorous"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. Every replicate is a fresh process of every candidate; its rounds interleave them in random
    order; a block is `block_s` seconds of one candidate on one workload, after a pause of `settle_s`."""

    name: str
    replicates: int
    rounds: int
    block_s: float
    warm_up_s: float
    settle_s: float
    least_passes: int
    most_passes: int
    timeout_s: float
    seed: int


BUDGETS: Mapping[Budget, Plan] = {
    Budget.SMOKE: Plan(
        name="smoke",
        replicates=2,
        rounds=2,
        block_s=0.05,
        warm_up_s=0.1,
        settle_s=0.05,
        least_passes=1,
        most_passes=10,
        timeout_s=900,
        seed=0,
    ),
    Budget.QUICK: Plan(
        name="quick",
        replicates=4,
        rounds=3,
        block_s=0.25,
        warm_up_s=0.5,
        settle_s=0.05,
        least_passes=1,
        most_passes=50,
        timeout_s=900,
        seed=0,
    ),
    Budget.STANDARD: Plan(
        name="standard",
        replicates=8,
        rounds=6,
        block_s=0.5,
        warm_up_s=1.0,
        settle_s=0.1,
        least_passes=3,
        most_passes=200,
        timeout_s=1800,
        seed=0,
    ),
    Budget.RIGOROUS: Plan(
        name="rigorous",
        replicates=12,
        rounds=15,
        block_s=1.0,
        warm_up_s=2.0,
        settle_s=0.1,
        least_passes=5,
        most_passes=1000,
        timeout_s=3600,
        seed=0,
    ),
}
