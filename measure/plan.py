"""How much is measured (light: no engine, no numpy)."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from errors import UserError


class Budget(StrEnum):
    """How much time a comparison may take: a minute that only shows that everything runs, minutes, a quarter of an
    hour, hours."""

    SMOKE = "smoke"
    QUICK = "quick"
    STANDARD = "standard"
    RIGOROUS = "rigorous"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Every replicate is a fresh process of each candidate; its rounds interleave them in random order; a block is
    `block_s` seconds of one candidate on one workload, but at least `least_passes` and `least_calls`, after a pause of
    `settle_s`. `replicates` are made of everyone;
    then more of those that are not settled yet, up to `most_replicates`, while the seconds of all processes together
    stay below `limit_s`. A replicate makes `rounds`, and in a session that has lasted `limit_s` no more than
    `least_rounds` (`None`: all of them all the same).
    """

    name: str
    replicates: int
    most_replicates: int
    limit_s: float
    rounds: int
    block_s: float
    warm_up_s: float
    settle_s: float
    least_passes: int
    most_passes: int
    timeout_s: float
    seed: int
    least_calls: int = 1
    least_rounds: int | None = None


QUICK = Plan(
    name=Budget.QUICK,
    replicates=3,
    most_replicates=20,
    limit_s=145,
    rounds=4,
    block_s=0.2,
    warm_up_s=0.4,
    settle_s=0.05,
    least_passes=1,
    most_passes=50,
    timeout_s=900,
    seed=0,
    least_calls=3,
    least_rounds=2,
)

BUDGETS: Mapping[Budget, Plan] = {
    Budget.SMOKE: Plan(
        name=Budget.SMOKE,
        replicates=1,
        most_replicates=1,
        limit_s=60,
        rounds=2,
        block_s=0.05,
        warm_up_s=0.1,
        settle_s=0.05,
        least_passes=1,
        most_passes=10,
        timeout_s=900,
        seed=0,
    ),
    Budget.QUICK: QUICK,
    Budget.STANDARD: Plan(
        name=Budget.STANDARD,
        replicates=8,
        most_replicates=24,
        limit_s=900,
        rounds=5,
        block_s=0.5,
        warm_up_s=1.0,
        settle_s=0.1,
        least_passes=3,
        most_passes=200,
        timeout_s=1800,
        seed=0,
    ),
    Budget.RIGOROUS: Plan(
        name=Budget.RIGOROUS,
        replicates=12,
        most_replicates=60,
        limit_s=7200,
        rounds=12,
        block_s=1.0,
        warm_up_s=2.0,
        settle_s=0.1,
        least_passes=5,
        most_passes=1000,
        timeout_s=3600,
        seed=0,
    ),
}

MOST_REPLICATES = 1000


def find_plan(text: str) -> Plan:
    """The plan of a budget's name, or of so many seconds: `quick`, and more processes until the time is over.

    Raises `UserError` for anything else.
    """
    if text in {budget.value for budget in Budget}:
        return BUDGETS[Budget(text)]
    try:
        limit_s = float(text.removesuffix("s"))
    except ValueError:
        limit_s = 0.0
    if not 0 < limit_s < float("inf"):
        raise UserError(f"--budget has '{text}'", f"give seconds, such as 300, or one of: {', '.join(Budget)}")
    return msgspec.structs.replace(QUICK, name=f"{limit_s:.0f} s", most_replicates=MOST_REPLICATES, limit_s=limit_s)
