"""What this machine is, how evenly it works now, and which candidates it can run."""

from collections.abc import Sequence

import msgspec

from measure.compare import probe_runtimes
from measure.machine import Machine, read_machine
from measure.noise import Noise, listen
from report.tables import Table, distance
from report.terminal import console, show_lines, show_table
from runtimes.base import Availability, Candidate
from runtimes.registry import REGISTRY, candidates, worthwhile

UNEVEN = 0.1
"""Spread of equal work (10th to 90th percentile, as a share) from which a machine is called uneven."""


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate, and why it cannot run here: `reason` and `remedy` are `None` when it can."""

    name: str
    runs: bool
    reason: str | None
    remedy: str | None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """`threads` is what every engine gets unless `--threads` says otherwise; `candidates` are for models that answer in
    one pass, `language` for those that write text."""

    machine: Machine
    threads: int
    noise: Noise
    runtimes: tuple[Availability, ...]
    candidates: tuple[Prospect, ...]
    language: tuple[Prospect, ...]


def examine() -> Diagnosis:
    """Listen to the machine first, then load each engine in a process of its own."""
    machine = read_machine()
    noise = listen(machine.usable_cores)
    found = probe_runtimes(
        [name for name, where in REGISTRY.items() if where.precisions or where.language], machine.usable_cores
    )
    by_name = {item.runtime: item for item in found}

    def prospects(*, language: bool) -> tuple[Prospect, ...]:
        every = worthwhile(candidates(None, None, language=language), language=language)
        return tuple(prospect(item, by_name[item.runtime]) for item in every)

    return Diagnosis(
        machine=machine,
        threads=machine.usable_cores,
        noise=noise,
        runtimes=found,
        candidates=prospects(language=False),
        language=prospects(language=True),
    )


def prospect(candidate: Candidate, found: Availability) -> Prospect:
    """Whether a candidate can run where its runtime is like that."""
    lack = found.lack_of(candidate)
    if not found.available:
        return Prospect(name=candidate.id, runs=False, reason=found.reason, remedy=found.remedy)
    if lack:
        return Prospect(name=candidate.id, runs=False, reason=lack.reason, remedy=lack.remedy)
    return Prospect(name=candidate.id, runs=True, reason=None, remedy=None)


def tell_diagnosis(found: Diagnosis) -> None:
    """The machine in three lines, then a row for each runtime, and one for whatever a working runtime lacks."""
    machine, noise, out = found.machine, found.noise, console()
    quota = f" (the cgroup allows {machine.cpu_quota_cores:g})" if machine.cpu_quota_cores is not None else ""
    spread = noise.high_fraction - noise.low_fraction
    steal = noise.load.steal_fraction
    show_lines(
        out,
        (
            f"{machine.cpu_model}: {machine.usable_cores} of {machine.cores} cores usable{quota}, so every engine gets "
            f"{found.threads} thread{'s' if found.threads > 1 else ''}; {machine.memory_bytes / 1e9:.0f} GB of memory, "
            f"{machine.system}, Python {machine.python}",
            f"instruction sets: {', '.join(machine.cpu_features) or 'none known'}",
            f"noise now: equal work takes {100 * noise.low_fraction:+.0f} to {100 * noise.high_fraction:+.0f} % of its "
            f"median time (10th to 90th percentile of {noise.repeats}); others use {noise.load.busy_fraction:.0%} of "
            f"the CPU{'' if steal is None else f', other virtual machines {steal:.0%}'}"
            + ("; measure when it is quieter" if spread > UNEVEN or noise.load.busy_fraction > UNEVEN else ""),
            *((distance(noise.cores),) if noise.cores else ()),
        ),
    )
    show_table(out, diagnosis_table(found))


def diagnosis_table(found: Diagnosis) -> Table:
    """Runtimes, what runs on each, and what would help the others."""
    rows = []
    for item in found.runtimes:
        where = f"{item.engine_version or ''} on {item.device}" if item.available else item.reason or ""
        runs = [_runs(item.runtime, offered) for offered in (found.candidates, found.language)]
        rows.append((item.runtime, *runs, where, item.remedy or ""))
        rows += [(f"{item.runtime}, {lack.word}", "no", "no", lack.reason, lack.remedy) for lack in item.lacks]
    headers = ("runtime", "runs in one pass", "writes text", "engine, or why not", "what would help")
    return Table(title="", headers=headers, rows=tuple(rows))


def _runs(runtime: str, offered: Sequence[Prospect]) -> str:
    """What of these runs on a runtime."""
    ours = [candidate for candidate in offered if candidate.name.startswith(f"{runtime}/")]
    return ", ".join(candidate.name.partition("/")[2] for candidate in ours if candidate.runs) or "nothing"
