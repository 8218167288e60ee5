"""What the harness and a training process say to each other: one JSON line each way, typed by its tag."""

import msgspec

from measure.messages import Failed, Reply, Request
from models.training import Lesson, TrainingRecord


class Begin(Request, frozen=True):
    """Load everything, and wait before the first step. The run goes to `out`."""

    lesson: Lesson
    out: str
    overwrite: bool


class Go(Request, frozen=True):
    """Train so many steps; after the last one, save and evaluate."""

    steps: int


class Paused(Reply, frozen=True):
    """So many steps of a training (its fingerprint) are done, of `total`; the seconds of all of them, and what the
    processor took since the last pause (`None` where it has no counter, or one that may have wrapped)."""

    training: str
    done: int
    total: int
    seconds_s: float
    energy_j: float | None


class Learnt(Reply, frozen=True):
    """The training is over (`made`: by this process). The most memory it held, on the host and on the device (`None`
    where there is no other, or where another process trained it)."""

    record: TrainingRecord
    made: bool
    peak_bytes: int | None
    device_peak_bytes: int | None


REQUESTS = msgspec.json.Decoder(Begin | Go)
REPLIES = msgspec.json.Decoder(Paused | Learnt | Failed)
