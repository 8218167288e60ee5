"""`load.jsonl`: what LoadGen drove and saw, one line as soon as a test is over. Statistics are derived later."""

from pathlib import Path

import msgspec

from artifact.precision import Precision
from artifact.records import append_line, read_lines
from measure.machine import Load, Machine
from measure.records import SCHEMA_VERSION, Failure
from measure.search import Outcome, outcome
from measure.traffic import Observed, Scenario, Traffic
from runtimes.base import Candidate, RuntimeInfo


class LoadSession(msgspec.Struct, frozen=True, kw_only=True, tag="load-session"):
    """One question, and what was measured to answer it.

    `asked` gives each candidate's fingerprint, or the reason why it cannot run: tests that have these fingerprints
    answer the question, whichever session made them. `rate_per_s` is the server scenario's, `None` where the highest
    was searched for. `load` is what others did just before, `None` where nothing was missing.
    """

    schema_version: int
    session: str
    asked: dict[str, str]
    started_utc: str
    machine: Machine
    load: Load | None
    threads: int
    scenarios: tuple[Scenario, ...]
    duration_s: float
    bound_s: float
    max_batch: int
    rate_per_s: float | None
    data: str
    examples: int
    inputs_sha256: str
    versions: dict[str, str]
    environment: dict[str, str]


class LoadTest(msgspec.Struct, frozen=True, kw_only=True, tag="load-test"):
    """One test of one candidate."""

    schema_version: int
    session: str
    fingerprint: str
    runtime: str
    precision: Precision
    options: tuple[str, ...] = ()
    info: RuntimeInfo
    model_sha256: str
    traffic: Traffic
    observed: Observed
    finished_utc: str

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.runtime, self.precision, self.options)

    @property
    def outcome(self) -> Outcome | None:
        """What it says of its rate; `None` where it has none."""
        bound_s = self.traffic.bound_s
        return None if bound_s is None else outcome(self.observed, bound_s)


LoadRecord = LoadSession | LoadTest | Failure
_DECODER = msgspec.json.Decoder(LoadRecord)


def append(path: Path, record: LoadRecord) -> None:
    """Add one record; it is on disk when this returns."""
    append_line(path, record)


def load(path: Path) -> list[LoadRecord]:
    """Every whole record of a file, in order; lines that a kill cut short or another version wrote are left out."""
    return [record for record in read_lines(path, _DECODER.decode) if record.schema_version == SCHEMA_VERSION]
