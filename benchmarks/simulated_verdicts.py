"""How often the verdicts are right where the truth is known: simulated comparisons with autocorrelated, drifting noise.

    .venv/bin/python -m benchmarks.simulated_verdicts

Two candidates run in turn, block by block, on a simulated machine. Its speed wanders (an autoregressive process that
both feel, each at the moment of its own block) and drifts; every process has a level of its own; blocks scatter; one in
twenty is disturbed and takes up to half as long again. `quick` decides as `compare` does: three processes each, of
which all but the first are lean, and more while undecided and affordable; blocks of a lean one scatter more. The
scatter of processes is what the A/A control showed on a shared 2-core machine (1.4 % for a pair), with half and twice
of that beside it.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from math import log

import numpy as np

from measure.plan import QUICK, Plan
from measure.statistics import Decision, LogRatio, decide, is_settled

WORKLOADS = 2
SCATTER = (0.004, 0.007, 0.014)
BESIDE_S = 10.0
"""Seconds of a quick comparison in which no process is timed, about: the harness itself, and answers, are judged."""
START_S, ROUND_S = 2.3, 1.0
"""Seconds in which a process of one side starts and warms up, and of a round of its blocks. With four rounds they are
the 6.3 s that a process of MiniLM was measured to take; how these divide is assumed."""
LEAN = 0.87
"""The share of a round that a lean one takes, reckoned from calls of 14 and 91 ms (1×128, 8×128)."""
FEWER = 1.1
"""How many times as far rounds scatter with one call of 8×128 as with three, from real comparisons (about); with two it
is less."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Standard deviations on the scale of logarithms: of process levels, of blocks, of the machine's wandering (with
    correlation `memory` from one block to the next), and the drift over a whole comparison."""

    process: float
    block: float = 0.012
    wander: float = 0.03
    memory: float = 0.9
    drift: float = 0.05

    def replicate(self, random: np.random.Generator, true: float, plan: Plan, place: float) -> float:
        """The logarithm of a replicate's ratio, as the median of its rounds; `place` is when it runs, from 0 to 1."""
        blocks = plan.rounds * WORKLOADS * 2
        path = np.empty(blocks)
        path[0] = random.normal(0, self.wander)
        steps = random.normal(0, self.wander * np.sqrt(1 - self.memory**2), blocks)
        for number in range(1, blocks):
            path[number] = self.memory * path[number - 1] + steps[number]
        path += self.drift * (place + np.arange(blocks) / blocks / QUICK.replicates)
        path += random.normal(0, self.block * (1 if plan.least_calls > 1 else FEWER), blocks)
        path += np.where(random.random(blocks) < 0.05, random.uniform(0, log(1.5), blocks), 0)
        turns = path.reshape(plan.rounds, WORKLOADS, 2)
        swapped = random.random((plan.rounds, WORKLOADS)) < 0.5
        base = np.where(swapped, turns[..., 1], turns[..., 0])
        mine = np.where(swapped, turns[..., 0], turns[..., 1])
        level = random.normal(0, self.process) - random.normal(0, self.process)
        # each workload for itself, as measure.pairing does
        return log(true) + level + float(np.median(base - mine, axis=0).mean())


def campaign(random: np.random.Generator, machine: Machine, true: float, plan: Plan) -> tuple[LogRatio, Decision]:
    """One comparison of two candidates by a plan, with its adaptive part."""
    spent_s, logs = BESIDE_S, list[float]()
    while len(logs) < plan.most_replicates and (len(logs) < plan.replicates or not is_settled(logs)):
        mine, place = plan.of(len(logs)), min(1.0, len(logs) / plan.replicates)
        spent_s += 2 * (START_S + mine.rounds * (LEAN if plan.is_lean(len(logs)) else 1) * ROUND_S)
        if len(logs) >= plan.replicates and spent_s > plan.limit_s:
            break
        logs.append(machine.replicate(random, true, mine, place))
    ratio = LogRatio.of(logs)
    return ratio, decide([ratio])[0]


def main() -> None:
    """Print coverage and decisions for each true ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=2000, help="for each line (default: 2000)")
    count = parser.parse_args().campaigns
    print(
        f"{'processes':>9} {'true ratio':>10} {'covered':>8} {'wrong':>7} {'called':>7} {'equivalent':>10} {'runs':>5}"
    )
    for scatter in SCATTER:
        for true in (1.0, 1.02, 1 / 1.05, 1.05, 1.3):
            random = np.random.default_rng([round(1e4 * scatter), round(1e4 * true)])
            found = [campaign(random, Machine(scatter), true, QUICK) for _ in range(count)]
            intervals = [ratio.interval() for ratio, _ in found]
            covered = sum(1 for item in intervals if item.low and item.high and item.low <= true <= item.high)
            decisions = Counter(decision for _, decision in found)
            right = Decision.FASTER if true > 1.02 else Decision.SLOWER if true < 1 / 1.02 else None
            called = decisions[Decision.FASTER] + decisions[Decision.SLOWER]
            wrong = called - (decisions[right] if right else 0) + (decisions[Decision.EQUIVALENT] if right else 0)
            replicates = np.mean([ratio.replicates for ratio, _ in found])
            print(
                f"{scatter:>9.1%} {true:>10.3f} {covered / count:>8.1%} {wrong / count:>7.1%} {called / count:>7.1%} "
                f"{decisions[Decision.EQUIVALENT] / count:>10.1%} {replicates:>5.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
