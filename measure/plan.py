"""How much is measured (light: no engine, no numpy)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Self

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
    `settle_s`. `replicates` are made of everyone; then more of those that are not settled yet, up to `most_replicates`,
    while all sessions together last no longer than `limit_s`.

    The first `full_replicates` (`None`: `replicates`) are as told, the others lean (none where `lean_rounds` is
    `None`): so many rounds, of blocks that may be a single pass. They tell one speed from another, where another
    process tells more than more calls of the same one. No replicate makes more rounds than a lean one in a session that
    has lasted `limit_s`.
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
    lean_rounds: int | None = None
    full_replicates: int | None = None

    @property
    def lean(self) -> Self:
        """The plan as lean replicates follow it."""
        if self.lean_rounds is None:
            return self
        rounds = min(self.rounds, self.lean_rounds)
        return msgspec.structs.replace(self, rounds=rounds, least_passes=1, least_calls=1)

    def is_lean(self, replicate: int) -> bool:
        """Whether the replicate of that number, from 0, is lean."""
        full = self.replicates if self.full_replicates is None else self.full_replicates
        return self.lean_rounds is not None and replicate >= full

    def of(self, replicate: int) -> Self:
        """The plan as the replicate of that number follows it."""
        return self.lean if self.is_lean(replicate) else self


QUICK = Plan(
    name=Budget.QUICK,
    replicates=3,
    most_replicates=40,
    limit_s=170,
    rounds=4,
    block_s=0.2,
    warm_up_s=0.4,
    settle_s=0.05,
    least_passes=1,
    most_passes=50,
    timeout_s=900,
    seed=0,
    least_calls=3,
    lean_rounds=3,
    full_replicates=1,
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
        most_replicates=60,
        limit_s=900,
        rounds=5,
        block_s=0.5,
        warm_up_s=1.0,
        settle_s=0.1,
        least_passes=3,
        most_passes=200,
        timeout_s=1800,
        seed=0,
        lean_rounds=3,
    ),
    Budget.RIGOROUS: Plan(
        name=Budget.RIGOROUS,
        replicates=12,
        most_replicates=200,
        limit_s=7200,
        rounds=12,
        block_s=1.0,
        warm_up_s=2.0,
        settle_s=0.1,
        least_passes=5,
        most_passes=1000,
        timeout_s=3600,
        seed=0,
        lean_rounds=5,
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
