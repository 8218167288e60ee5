"""What the turns, the losses and the answers of several trainings say about them. Pure but for reading their files."""

import csv
from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from artifact.intervals import Estimate, Interval
from artifact.run_folder import RunFolder
from measure.process import WorkerFailed
from measure.statistics import LogRatio, decide
from models.metrics import Metric, compare, metric_of
from side_by_side.messages import Learnt
from side_by_side.records import Place, Row, TurnRecord
from side_by_side.setting import Setting

Outcome = Learnt | WorkerFailed | None


def judge(
    outcomes: Sequence[tuple[Setting, Outcome]], turns: Sequence[TurnRecord], place: Place
) -> tuple[tuple[Row, ...], str | None]:
    """A row for each setting, and the name of the baseline: the first that was trained (`None`: none was)."""
    trained = {setting.name: (setting, found) for setting, found in outcomes if isinstance(found, Learnt)}
    baseline = next(iter(trained), None)
    ratios = {
        name: LogRatio.of(logs)
        for name in trained
        if baseline is not None and name != baseline and (logs := log_ratios(turns, baseline, name))
    }
    decisions = dict(zip(ratios, decide(list(ratios.values())), strict=True))
    rows = []
    for setting, found in outcomes:
        if not isinstance(found, Learnt):
            why = found or WorkerFailed("it was not trained")
            rows.append(Row(setting=setting.name, reason=why.reason, hint=why.hint))
            continue
        run = RunFolder(place.run(setting.folder))
        beside = None if baseline in (None, setting.name) else RunFolder(place.run(trained[str(baseline)][0].folder))
        record = found.record
        metric = metric_of(record.data.task, record.data.problem, len(record.labels))
        ratio = ratios.get(setting.name)
        rows.append(
            Row(
                setting=setting.name,
                device=record.device,
                steps=record.steps,
                seconds_s=record.seconds_s,
                samples_per_s=record.samples_per_s,
                speed=_estimate(ratio.interval()) if ratio else None,
                decision=decisions[setting.name].value if ratio else None,
                value=record.value,
                difference=_estimate(difference(run, beside, metric)) if beside else None,
                final_loss=record.final_loss,
                loss_distance=loss_distance(run, beside) if beside else None,
                peak_bytes=found.peak_bytes,
                device_peak_bytes=found.device_peak_bytes,
                energy_j=energy(turns, setting.name),
            )
        )
    return tuple(rows), baseline


def log_ratios(turns: Sequence[TurnRecord], baseline: str, other: str) -> list[float]:
    """Logarithms of how many times as fast as the baseline each turn was that both had in one session, with the same
    steps. The first turn of a process is left out."""
    base, rival = (_seconds(turns, name) for name in (baseline, other))
    return [log(base[span] / rival[span]) for span in sorted(base.keys() & rival.keys())]


def _seconds(turns: Sequence[TurnRecord], setting: str) -> dict[tuple[str, int, int], float]:
    return {
        (turn.session, turn.first, turn.last): turn.seconds_s
        for turn in turns
        if turn.setting == setting and not turn.opening
    }


def energy(turns: Sequence[TurnRecord], setting: str) -> float | None:
    """What the processor took for all steps; `None` where it has no counter. Of a step that was made twice, because a
    training was interrupted after it, the later counts."""
    by_step: dict[int, float | None] = {}
    for turn in turns:
        if turn.setting == setting:
            share = None if turn.energy_j is None else turn.energy_j / (turn.last - turn.first + 1)
            by_step.update(dict.fromkeys(range(turn.first, turn.last + 1), share))
    known = [joules for joules in by_step.values() if joules is not None]
    return sum(known) if known and len(known) == len(by_step) else None


def difference(run: RunFolder, baseline: RunFolder, metric: Metric) -> Interval:
    """The metric minus the baseline's on the same examples, by pairs."""
    return compare(metric, statistics(run), statistics(baseline)).difference


def loss_distance(run: RunFolder, baseline: RunFolder) -> float:
    """Mean over the steps of both of how far one loss is from the other."""
    one, other = losses(run), losses(baseline)
    steps = min(len(one), len(other))
    return float(np.abs(one[:steps] - other[:steps]).mean())


def losses(run: RunFolder) -> NDArray[np.float64]:
    """The loss of every step."""
    with run.losses.open(newline="") as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def statistics(run: RunFolder) -> NDArray[np.float64]:
    """What a run's model made of each held-out example, shape (examples, k)."""
    with np.load(run.predictions, allow_pickle=False) as found:
        return np.asarray(found["statistics"], dtype=np.float64)


def _estimate(interval: Interval) -> Estimate | None:
    if interval.low is None or interval.high is None:
        return None
    return Estimate(value=interval.estimate, low=interval.low, high=interval.high)
