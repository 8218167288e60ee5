"""What training side by side leaves: a line for each turn, and `side-by-side.json`."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from artifact.intervals import Estimate
from measure.machine import Machine
from models.training import Lesson

SCHEMA_VERSION = 2


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of one setting: steps `first` to `last` (from 1), their seconds, and what the processor took.

    `training` is the fingerprint of its `training.json`. Turns of one `session` alternated with each other, and only
    those may be compared. `opening` marks the first of a
    process, which fills caches and may compile.
    """

    session: str
    training: str
    setting: str
    opening: bool
    first: int
    last: int
    seconds_s: float
    energy_j: float | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One setting beside the baseline; `reason` says why it was not trained, and the rest is then `None`.

    `speed` is how many times as fast as the baseline a turn of the same steps is, `decision` what its interval says.
    `seconds_s` are those of all steps, `energy_j` what all packages of the processor took in its turns, other
    programs' and saving included; a GPU's is not in it. `value` is of the comparison's `metric`. `loss_distance` is the
    mean over steps of how far its loss is from the baseline's.
    """

    setting: str
    reason: str | None = None
    hint: str = ""
    device: str | None = None
    steps: int | None = None
    seconds_s: float | None = None
    samples_per_s: float | None = None
    speed: Estimate | None = None
    decision: str | None = None
    value: Estimate | None = None
    difference: Estimate | None = None
    final_loss: float | None = None
    loss_distance: float | None = None
    peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    energy_j: float | None = None


class SideBySide(msgspec.Struct, frozen=True, kw_only=True):
    """`side-by-side.json`: the settings in the order they were asked for. `baseline` is the first that was trained."""

    schema_version: int
    lesson: Lesson
    baseline: str | None
    metric: str
    rows: tuple[Row, ...]
    examples: dict[str, int]
    machine: Machine
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything lies: a run for each setting, named after it, and the comparison beside them."""

    directory: Path

    def run(self, folder: str) -> Path:
        return self.directory / folder

    def learnt(self, folder: str) -> Path:
        """What a setting's training process said at its end."""
        return self.directory / folder / "learnt.json"

    @property
    def turns(self) -> Path:
        return self.directory / "turns.jsonl"

    @property
    def record(self) -> Path:
        return self.directory / "side-by-side.json"

    @property
    def report(self) -> Path:
        return self.directory / "side-by-side.md"

    @property
    def curves(self) -> Path:
        return self.directory / "losses.svg"
