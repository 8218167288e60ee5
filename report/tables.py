"""What a verdict shows, before it is known where: on the terminal, in `report.md` and in `report.html`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from measure.core_distance import CoreDistance
from measure.plan import Budget
from measure.records import Role
from measure.statistics import Decision
from measure.workload import Phase
from report.figures import DASH, accuracy, fraction, joules, perplexity, rate, seconds, size, times
from report.policy import Objective
from report.verdict import Gate, Ratio, Row, TextResult, Verdict, WorkloadResult

OVER = {Objective.LATENCY: " at the smallest batch", Objective.THROUGHPUT: " at the largest batch"}
"""What the speeds of a verdict are over, where that is not every workload."""

KERNELS = 6
"""Kernels that are named; the others are counted together."""

FINE = 0.03
"""How well speeds should be known, as a share: so that whole comparisons repeat (`docs/benchmarks.md`)."""

FIGURES = 40
"""Letters of a cell that begins with a digit and is no sentence."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headers and rows of text; a line break in a cell is where it may be broken. `strong` are the numbers of the rows
    that matter most."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()

    def is_numeric(self, position: int) -> bool:
        """Whether a column holds nothing but figures, which align at the right."""
        cells = [row[position] for row in self.rows]
        return position > 0 and all(cell == DASH or (cell[:1].isdigit() and len(cell) <= FIGURES) for cell in cells)


def summary(verdict: Verdict) -> Table:
    """One line for each measured candidate: speed, answers, costs."""
    measured = [row for row in verdict.rows if row.measured]
    writes = verdict.writes
    near = any(row.quality and row.quality.neighbours_fraction is not None for row in measured)
    over = OVER.get(verdict.policy.objective, "")
    known = ", with a 95 % interval" if any(row.overall and row.overall.is_known for row in measured) else ""
    return Table(
        title=f"Speed{over} is against {verdict.baseline}{known}" if verdict.baseline else "Measured",
        headers=(
            "candidate",
            "speed",
            *(("next token", "perplexity") if writes else (verdict.measure,)),
            "agrees",
            *(("10 nearest",) if near else ()),
            "first answer",
            "memory",
            "file",
        ),
        rows=tuple(
            (
                row.name,
                _speed(row),
                accuracy(row.quality),
                *((perplexity(row.quality),) if writes else ()),
                fraction(row.quality.agreement_fraction if row.quality else None),
                *((fraction(row.quality.neighbours_fraction if row.quality else None),) if near else ()),
                seconds(row.cold_start_s),
                size(row.memory_bytes),
                size(row.model_bytes),
            )
            for row in measured
        ),
        strong=frozenset(number for number, row in enumerate(measured) if row.name == verdict.deployable),
    )


def workloads(verdict: Verdict) -> Table:
    """Median time of a batch and the ratio, for each workload."""
    measured = [row for row in verdict.rows if row.measured]
    results = measured[0].workloads if measured else ()
    names = [result.workload for result in results]
    return Table(
        title="By workload (batch × prompt): seconds to the first token, and of each token after it"
        if verdict.writes
        else f"By workload (batch × {'height × width' if verdict.sees else 'tokens'}): median of one batch",
        headers=("candidate", *names),
        rows=tuple(
            (
                row.name,
                *(
                    seconds(result.batch_s)
                    + (f", {rate(result.tokens_per_s)}/s" if result.tokens else "")
                    + (f"\n{times(result.speed)}" if result.speed else "")
                    for result in row.workloads
                ),
            )
            for row in measured
        ),
        strong=frozenset(number for number, row in enumerate(measured) if row.name == verdict.deployable),
    )


def slow_calls(verdict: Verdict) -> Table | None:
    """For each workload the highest percentile that so many calls can bound; `None` when there are too few for any."""
    rows = [
        row
        for row in verdict.rows
        if row.measured and row.role is not Role.CONTROL and any(item.p90_s is not None for item in row.workloads)
    ]
    if not rows:
        return None
    return Table(
        title="Slow calls: the highest percentile that so many calls tell, from above with 99 % certainty",
        headers=("candidate", *(result.workload for result in rows[0].workloads)),
        rows=tuple((row.name, *(_slowest(result) for result in row.workloads)) for row in rows),
        strong=frozenset(number for number, row in enumerate(rows) if row.name == verdict.deployable),
    )


def on_device(verdict: Verdict) -> Table | None:
    """Median time of a batch by the clock of the device alone; `None` when every host is its device."""
    rows = [row for row in verdict.rows if row.measured and any(item.device_s is not None for item in row.workloads)]
    if not rows:
        return None
    return Table(
        title="On the device alone: median of one batch, and what copying and overhead add from host to host",
        headers=("candidate", *(result.workload for result in rows[0].workloads)),
        rows=tuple((row.name, *(_on_device(result) for result in row.workloads)) for row in rows),
        strong=frozenset(number for number, row in enumerate(rows) if row.name == verdict.fastest),
    )


def energy(verdict: Verdict) -> Table | None:
    """What the processor took for a batch; `None` where it has no counter that can be read."""
    rows = [row for row in verdict.rows if row.measured and any(item.energy_j is not None for item in row.workloads)]
    if not rows:
        return None
    return Table(
        title="Energy: joules of one batch, by the processor's counters (median)",
        headers=("candidate", *(result.workload for result in rows[0].workloads)),
        rows=tuple((row.name, *(joules(result.energy_j) for result in row.workloads)) for row in rows),
        strong=frozenset(number for number, row in enumerate(rows) if row.name == verdict.deployable),
    )


def around_engine(verdict: Verdict) -> Table | None:
    """What a language model's tokens take besides any engine, and how much that is of the shipped one's time."""
    found = verdict.overhead
    if found is None:
        return None
    row = next((row for row in verdict.rows if row.measured and row.name == verdict.deployable), None)
    took: dict[Phase, float] = {}
    for result in row.workloads if row else ():  # of each kind the first, which is the smallest
        if result.phase:
            took.setdefault(result.phase, result.batch_s / (result.tokens or 1))
    parts = (
        ("a prompt's token from its text", found.tokenise_s, took.get(Phase.READ))
        if found.hear_s is None
        else ("a recording's features from its file", found.hear_s, took.get(Phase.READ)),
        ("the likeliest token from the scores", found.choose_s, took.get(Phase.WRITE)),
        ("a drawn token (temperature 0.7, top-k 50, top-p 0.9)", found.draw_s, took.get(Phase.WRITE)),
        ("a token's text", found.tell_s, took.get(Phase.WRITE)),
    )
    return Table(
        title="Besides the engine: each token takes",
        headers=("", "time", f"of what {row.name} takes in the first workload" if row else "of the engine's"),
        rows=tuple(
            (name, seconds(spent), fraction(spent / engine_s) if spent is not None and engine_s else DASH)
            for name, spent, engine_s in parts
        ),
    )


def from_text(verdict: Verdict) -> Table | None:
    """Texts a second from raw text to label, and what overlapping gains; `None` where that was not asked for."""
    rows = [row for row in verdict.rows if row.from_text]
    if not rows:
        return None
    return Table(
        title=f"From raw text to {'label' if verdict.judged.chooses else 'answer'}: texts per second",
        headers=("candidate", "in turn", "of it tokenising", "overlapped", "gain of overlapping"),
        rows=(
            *((row.name, *_from_text(row.from_text)) for row in rows if row.from_text),
            ("no engine", rate(verdict.tokenizer_texts_per_s), DASH, DASH, DASH),
        ),
        strong=frozenset(number for number, row in enumerate(rows) if row.name == verdict.deployable),
    )


def not_measured(verdict: Verdict) -> Table | None:
    """What could not be measured, why, and what would help; `None` when everything was."""
    missing = [row for row in verdict.rows if not row.measured]
    if not missing:
        return None
    return Table(
        title="Not measured",
        headers=("candidate", "why", "what would help"),
        rows=tuple((row.name, row.reason or DASH, row.remedy or DASH) for row in missing),
    )


def what_ran(verdict: Verdict) -> Table:
    """Where and how each candidate really ran, read back from its engine."""
    rows = []
    for row in verdict.rows:
        if not row.measured or row.info is None or row.role is Role.CONTROL:
            continue
        executed = row.executed
        kernels = list(executed.kernels.items()) if executed else []
        named = ", ".join(f"{count} {name}" for name, count in kernels[:KERNELS])
        rest = sum(count for _, count in kernels[KERNELS:])
        rows.append(
            (
                row.name,
                f"{row.engine} on {row.info.device}, {row.info.dtype}",
                str(row.info.threads),
                DASH if executed is None or executed.conversions is None else str(executed.conversions),
                DASH if executed is None or executed.copies is None else str(executed.copies),
                named + (f", {rest} others" if rest else "") if executed else "the engine does not tell",
            )
        )
    return Table(
        title="What ran, as the engines tell it",
        headers=("candidate", "engine", "threads", "conversions", "copies", "kernels of one run"),
        rows=tuple(rows),
    )


def headline(verdict: Verdict) -> tuple[str, ...]:
    """The answer in sentences: what to ship, how sure that is, what was rejected."""
    rows = {row.name: row for row in verdict.rows}
    lines = []
    if verdict.deployable is None:
        lines.append("Nothing that was measured can be recommended for CPUs: see the reasons below.")
    else:
        lines += _recommendation(rows[verdict.deployable], verdict)
    if verdict.fastest and verdict.fastest != verdict.deployable:
        speed = times(rows[verdict.fastest].overall)
        lines.append(
            f"{verdict.fastest} is the fastest that keeps its {verdict.measure} ({speed}), but needs its own engine "
            "where it is deployed."
        )
    if verdict.close:
        lines.append(f"Too close to it to call: {', '.join(verdict.close)}.")
    lines += [
        _more_effort(row, row.overall, verdict)
        for row in verdict.rows
        if row.role is Role.CANDIDATE and row.overall and row.overall.is_known and row.overall.more_processes != 0
    ]
    return tuple(lines)


def why_not(verdict: Verdict) -> Table | None:
    """Why each measured candidate that is not recommended is not; `None` when there is none."""
    rows = [row for row in verdict.rows if row.measured and (row.reason or row.lost)]
    if not rows:
        return None
    return Table(
        title="Why not the others",
        headers=("candidate", "because"),
        rows=tuple((row.name, row.reason or row.lost or DASH) for row in rows),
    )


def noise(verdict: Verdict) -> str:
    """How unevenly the machine ran, and what the A/A control says of it: to be read before any winner."""
    found = verdict.noise
    told = " ".join(part for part in (control(verdict), certainty(verdict)) if part)
    if found is None:
        return told
    drift = "" if found.drift_fraction is None else f", {100 * found.drift_fraction:+.1f} % from first process to last"
    cores = "" if found.cores is None else f" {distance(found.cores)}."
    return f"Noise: calls of the baseline vary by {fraction(found.call_fraction)}{drift}.{cores} {told}"


def distance(cores: CoreDistance) -> str:
    """How far apart CPUs lie."""
    told = f"CPU to CPU: {cores.together_ns:.0f} ns there and back"
    if cores.apart_ns is None:
        return told
    return f"{told}, {cores.apart_ns:.0f} ns in {fraction(cores.apart_fraction)} of the looks, when they lie apart"


def control(verdict: Verdict) -> str:
    """What the A/A control says of this machine's noise."""
    row = next((row for row in verdict.rows if row.role is Role.CONTROL and row.measured), None)
    if row is None or verdict.control is None:
        return "A/A control: none was measured."
    meaning = {
        Decision.EQUIVALENT: "differences above 2 % can be seen here",
        Decision.INCONCLUSIVE: "this machine's noise hides differences as small as this interval",
        Decision.FASTER: "it should not differ: do not trust small differences",
        Decision.SLOWER: "it should not differ: do not trust small differences",
    }
    looks = [(item.speed, f"at {item.workload}") for item in row.workloads] + [(row.overall, "over all workloads")]
    speed, where = next((look for look in looks if look[0] and look[0].decision is verdict.control), looks[0])
    found = f"A/A control (the baseline against itself): {verdict.control}, {times(speed)} {where}"
    says = (
        meaning[verdict.control]
        if speed and speed.is_known
        else "one process of each says nothing of this machine's noise"
    )
    return f"{found}; {says}."


def certainty(verdict: Verdict) -> str:
    """How well the speeds are known, and what it takes to know each of them to `FINE`; empty where no interval is.

    Widths of intervals shrink with the square root of the number of processes.
    """
    judged = (row for row in verdict.rows if row.measured and row.role is not Role.ANCHOR)
    widths = {row.name: row.overall.half_width_fraction for row in judged if row.overall}
    known = {name: width for name, width in widths.items() if width is not None}
    if not known:
        return ""
    least, most = (f"±{fraction(width)}" for width in (min(known.values()), max(known.values())))
    said = f"Speeds are known to {least}" + (f" at best, {most} at worst" if least != most else "")
    rows = {row.name: row for row in verdict.rows}
    more = {name: ceil(rows[name].processes * ((width / FINE) ** 2 - 1)) for name, width in known.items()}
    if max(more.values()) <= 0:
        return f"{said}."
    beside = [row for row in verdict.rows if row.role is not Role.CANDIDATE]  # in every round
    needed = {
        **{name: count for name, count in more.items() if count > 0},
        **{row.name: max(more.values()) for row in beside},
    }
    minutes = ceil(sum(count * (rows[name].process_s or 0.0) for name, count in needed.items()) / 60)
    return f"{said}; to know all to ±{fraction(FINE, 0)} takes about {minutes} minutes more (--budget)."


def how_measured(verdict: Verdict) -> tuple[str, ...]:
    """Machine, effort and versions, one line each."""
    machine = verdict.machine
    versions = ", ".join(f"{name} {number}" for name, number in verdict.versions.items())
    features = ", ".join(machine.cpu_features) or "no vector extensions known"
    floor = verdict.harness_floor_s
    return (
        f"Machine: {machine.cpu_model}, {machine.usable_cores} usable cores, {machine.system.split()[0]} ({features})",
        f"Threads: {verdict.threads} for every engine",
        f"Effort: {verdict.budget}, {_processes(verdict)} of each candidate × "
        f"{_from_to(*verdict.rounds)} interleaved rounds in random order",
        f"Data: {verdict.examples} examples of {verdict.data}, measured {verdict.measured_utc}",
        *([] if energy(verdict) else ["Energy: not available, no counter of the processor can be read here"]),
        f"Harness: adds {seconds(floor)} to each sample" if floor is not None else "Harness: its floor is not known",
        f"Versions: {versions}, Python {machine.python}",
    )


def _processes(verdict: Verdict) -> str:
    counts = [row.processes for row in verdict.rows if row.measured] or [verdict.replicates]
    return f"{_from_to(min(counts), max(counts))} fresh {'process' if max(counts) == 1 else 'processes'}"


def _from_to(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _more_effort(row: Row, found: Ratio, verdict: Verdict) -> str:
    """What it would take to tell a candidate from the baseline."""
    base = next((item for item in verdict.rows if item.role is Role.ANCHOR), row)
    count = found.more_processes
    if count is None:
        return f"{row.name} cannot be told from the baseline on this machine: its processes scatter too much."
    cost = seconds(count * ((row.process_s or 0) + (base.process_s or 0)))
    processes = "process" if count == 1 else "processes"
    return f"About {count} more {processes} of {row.name} would decide its speed ({cost}): give a larger --budget."


def _recommendation(row: Row, verdict: Verdict) -> Sequence[str]:
    quality = row.quality
    speed = "" if row.role is Role.ANCHOR else f": {times(row.overall)} the speed of {verdict.baseline}"
    lines = [f"Ship {row.name}{speed}."]
    if verdict.budget == Budget.SMOKE:
        lines = [f"{row.name} is ahead{speed}; too short to decide: measure with --budget quick."]
    if quality is not None:
        read = "recordings" if verdict.hears else "texts"
        counted = f"{quality.examples} {verdict.counted}{f' of {quality.texts} {read}' if quality.texts else ''}"
        lines.append(
            f"Its {verdict.measure} is {quality.accuracy_fraction:.3f} on {counted} "
            f"({100 * quality.difference:+.1f} points from {quality.reference}, 95 % interval "
            f"{100 * quality.difference_low:+.1f} to {100 * quality.difference_high:+.1f}); "
            f"the gate is {quality.floor_fraction:.3f}."
        )
        if len(quality.flips) > 1:
            lines.append(
                f"Its answers depend on what shares a batch; {verdict.judged.answers} that differ from the "
                "reference's: "
                + ", ".join(
                    f"{count} batched {'as served' if verdict.sees else 'by length'}"
                    if way == "served"
                    else f"{count} at batch {way}"
                    for way, count in quality.flips.items()
                )
                + "."
            )
        if quality.gate is Gate.PASSED_UNSURE:
            lines.append(f"≈ With {counted} the interval reaches below the gate: more examples would tell.")
    return lines


def _slowest(result: WorkloadResult) -> str:
    known = (("p99", result.p99_s), ("p95", result.p95_s), ("p90", result.p90_s))
    return next((f"{name} ≤ {seconds(bound)}" for name, bound in known if bound is not None), DASH)


def _on_device(result: WorkloadResult) -> str:
    return f"{seconds(result.device_s)}\n(+ {fraction(result.overhead_fraction, 0)} of {seconds(result.batch_s)})"


def _from_text(found: TextResult) -> tuple[str, ...]:
    gain = f"{times(found.gain)}\n{found.gain.decision}" if found.gain else DASH
    return rate(found.texts_per_s), fraction(found.tokenise_fraction), rate(found.overlapped_texts_per_s), gain


def _speed(row: Row) -> str:
    if row.role is Role.ANCHOR:
        return "baseline"
    return f"{times(row.overall)}\n{row.overall.decision}" if row.overall else DASH
