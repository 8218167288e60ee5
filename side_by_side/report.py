"""What training side by side shows, on the terminal and in `side-by-side.md`."""

from artifact.intervals import Estimate
from models.metrics import PERPLEXITY
from report.figures import DASH, joules, rate, seconds, size
from report.markdown import written_table
from report.tables import Table
from side_by_side.records import Row, SideBySide

LOSSES = ("last loss", "distance of losses")

READING = (
    "Every setting learnt from the same examples in the same order, from the same first weights. They trained in "
    "turns, a few steps of each, in an order drawn anew for each round. Speed is the geometric mean over turns of the "
    "baseline's seconds over the setting's for the same steps, with Student's 95 % interval; the first turn of a "
    "process is left out. Each setting ran in one process: how far others of it would differ, the interval does not "
    "know; on a shared machine that can be some per cent.",
    "What was learnt is told by the saved fp32 weights, answering in fp32; its interval over the "
    "held-out examples is Wilson's for an accuracy, and else a bootstrap; that of the difference is by pairs of "
    "answers.",
    "Distance is how far the loss is from the baseline's, on average over the steps. Memory is the most that the "
    "process held (peak RSS), and the most that PyTorch allocated on the device. Energy is what the processor took, "
    "other programs' included, where it has a counter; a GPU's is not in it.",
)


def headline(found: SideBySide) -> tuple[str, ...]:
    """What was trained, and the one sentence about each setting."""
    config = found.lesson.config
    said = [
        f"{config.epochs} epoch{'s' if config.epochs > 1 else ''} of {found.examples.get('train', 0):,} examples, "
        f"{config.batch_size * config.accumulate} a step, seed {config.seed}"
    ]
    said += [f"{row.setting} is {_sentence(row, found)}" for row in found.rows if row.speed is not None]
    return tuple(said)


def _sentence(row: Row, found: SideBySide) -> str:
    """Of a row with a speed."""
    words = {
        "faster": "faster than",
        "slower": "slower than",
        "equivalent": "as fast as",
        "inconclusive": "too close to call beside",
    }
    kept = row.difference
    quality = ""
    if kept is not None:
        told = "cannot be told from" if kept.low <= 0 <= kept.high else ("is above" if kept.value > 0 else "is below")
        quality = f"; its {found.metric} {told} the baseline's"
    return f"{words[str(row.decision)]} {found.baseline}: {_times(row.speed)}{quality}"


def tables(found: SideBySide) -> tuple[Table, ...]:
    """What each setting cost, what it learnt, and which were not trained; those that have a row."""
    return tuple(table for table in (_costs(found), _learnt(found), _missing(found)) if table.rows)


def _costs(found: SideBySide) -> Table:
    rows = [row for row in found.rows if row.reason is None]
    return Table(
        title="Speed and costs",
        headers=("setting", "speed", "verdict", "examples/s", "all steps", "memory", "on the device", "CPU energy"),
        rows=tuple(
            (
                row.setting,
                _times(row.speed),
                row.decision or ("baseline" if row.setting == found.baseline else "not in turns with the baseline"),
                rate(row.samples_per_s),
                seconds(row.seconds_s),
                size(row.peak_bytes),
                size(row.device_peak_bytes),
                joules(row.energy_j),
            )
            for row in rows
        ),
    )


def _learnt(found: SideBySide) -> Table:
    plain = found.metric == PERPLEXITY.name
    rows = [row for row in found.rows if row.reason is None]
    return Table(
        title="What was learnt",
        headers=("setting", found.metric, "difference" if plain else "difference in points", *LOSSES),
        rows=tuple(
            (
                row.setting,
                _share(row.value),
                _points(row.difference, 1 if plain else 100),
                _loss(row.final_loss),
                _loss(row.loss_distance),
            )
            for row in rows
        ),
    )


def _missing(found: SideBySide) -> Table:
    return Table(
        title="Not trained",
        headers=("setting", "why", "what would help"),
        rows=tuple((row.setting, row.reason, row.hint) for row in found.rows if row.reason is not None),
    )


def render(found: SideBySide) -> str:
    """`side-by-side.md`, complete in itself."""
    lines = ["# The same training, side by side", "", *(f"- {line}" for line in headline(found)), ""]
    for table in tables(found):
        lines += [written_table(table), ""]
    if any(row.reason is None for row in found.rows):
        lines += ["![The loss of every step](losses.svg)", ""]
    machine = found.machine
    devices = dict.fromkeys(row.device for row in found.rows if row.device and row.device != "cpu")
    lines += [
        f"On {machine.cpu_model}, {machine.usable_cores} cores"
        + "".join(f", and {name}" for name in devices)
        + f"; {', '.join(f'{name} {version}' for name, version in found.versions.items())}.",
        "",
        *(f"{line}\n" for line in READING),
    ]
    return "\n".join(lines)


def _times(estimate: Estimate | None) -> str:
    return DASH if estimate is None else f"{estimate.value:.2f}× [{estimate.low:.2f}–{estimate.high:.2f}]"


def _share(estimate: Estimate | None) -> str:
    return DASH if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}–{estimate.high:.3f}]"


def _points(estimate: Estimate | None, factor: float) -> str:
    """A difference, in percentage points where `factor` is 100."""
    if estimate is None:
        return DASH
    return f"{factor * estimate.value:+.1f} [{factor * estimate.low:+.1f} to {factor * estimate.high:+.1f}]"


def _loss(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
