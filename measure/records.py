"""`measurements.jsonl`: raw samples, one line as soon as they are known. Statistics are derived later."""

from enum import StrEnum
from pathlib import Path

import msgspec

from artifact.intervals import Interval, paired_difference
from artifact.judged import Judged
from artifact.precision import Precision
from artifact.records import append_line, read_lines
from measure.machine import Load, Machine
from measure.memory import MemoryReading
from measure.plan import Plan
from measure.statistics import accuracy_difference
from measure.workload import WorkloadSpec
from runtimes.base import Candidate, Executed, RuntimeInfo

SCHEMA_VERSION = 2


class Role(StrEnum):
    """Why something is measured: every ratio divides by the anchor, and the control is the anchor once more."""

    ANCHOR = "anchor"
    CONTROL = "control"
    CANDIDATE = "candidate"


class Entrant(msgspec.Struct, frozen=True, order=True):
    """A candidate in its role."""

    candidate: Candidate
    role: Role

    @property
    def name(self) -> str:
        """Name in tables; the control is told apart from the anchor it repeats."""
        return f"{self.candidate.id} (A/A)" if self.role is Role.CONTROL else self.candidate.id


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """What a language model's token takes besides the engine, in seconds: as part of a prompt, to be chosen as the
    likeliest, to be drawn (temperature 0.7, top-k 50, top-p 0.9), and to become text. `tell_s` is `None` where no text
    is sure before its end. Where recordings are heard, `tokenise_s` is `None`, and `hear_s` what one of them takes from
    its file to its features."""

    tokenise_s: float | None
    choose_s: float
    draw_s: float
    tell_s: float | None
    hear_s: float | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True, tag="session"):
    """One question, and one uninterrupted stretch of measuring what was missing to answer it.

    `asked` gives each entrant's fingerprint, or the reason why it cannot run: measurements that have these fingerprints
    answer the question, whichever session made them. Only measurements of one session and replicate ran interleaved, so
    only they are divided by one another.
    `load` and `harness_floor_s` are `None` where nothing was missing. `tokenizer_floor_s` are the seconds of a pass
    from texts to labels with a runtime that computes nothing, `overhead` is what a language model's tokens take.
    Of other models `judged` says what is right or wrong: the examples, their labels, or their words.
    """

    schema_version: int
    session: str
    asked: dict[str, str]
    started_utc: str
    machine: Machine
    load: Load | None
    plan: Plan
    threads: int
    workloads: tuple[WorkloadSpec, ...]
    labels: tuple[str, ...]
    reference: str
    data: str
    data_sha256: str
    inputs_sha256: str
    examples: int
    score_batch_sizes: tuple[int, ...]
    harness_floor_s: float | None
    versions: dict[str, str]
    environment: dict[str, str]
    tokenizer_floor_s: float | None = None
    overhead: Overhead | None = None
    judged: Judged = Judged.TEXT


class BlockSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each call of one block, pass after pass over the workload's batches.

    Where it starts from texts, a call is a whole pass, and `tokenise_s` are the seconds in each that went into
    tokenising and padding. `primer_s` is the call before, which is not counted. `device_samples_s` are calls on the
    device alone, in the same order; there are none where the host is the device, or where it starts from texts.
    `energy_j` is what the processor's own counters saw during `samples_s`, other programs included; `None` without such
    counters. `core_latency_ns` is how long CPUs needed to hand a cache line over and back, just before the block and
    just after it; empty for one thread, or where it was not seen. `wait_s` went by before the block: a pause, and
    blocks that do not count because CPUs lay apart before or after them, whose calls are `discarded_s`.
    """

    workload: str
    round: int
    primer_s: float
    samples_s: tuple[float, ...]
    device_samples_s: tuple[float, ...] = ()
    tokenise_s: tuple[float, ...] = ()
    energy_j: float | None = None
    core_latency_ns: tuple[float, ...] = ()
    wait_s: float = 0.0
    discarded_s: tuple[float, ...] = ()

    @property
    def spent_s(self) -> float:
        """Seconds that the block took, waiting included."""
        return self.wait_s + self.primer_s + sum(self.samples_s) + sum(self.device_samples_s)


class WarmUpSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each warm-up call, and whether they became level."""

    workload: str
    samples_s: tuple[float, ...]
    level: bool


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """From making the process to the first answer received; importing the engine, loading and answering are parts."""

    total_s: float
    import_s: float
    load_s: float
    first_run_s: float


class TextGains(msgspec.Struct, frozen=True, kw_only=True):
    """What texts gain, each one example, where several decisions are of one text: how many texts there are, the sum of
    the squares of what each gains, and the largest of these gains, in units of a text of mean size; see
    `gains_of_texts`."""

    texts: int
    squares: float
    largest: float


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Answers to the evaluation examples by the process that was timed, against the reference.

    `batch_size` examples shared a batch in the order of the data; `None`: batched by length as an artifact serves them.
    `not_finite` of the answers hold a NaN or an infinity. `wins` are examples that this candidate answers rightly and
    the reference wrongly, `losses` the reverse. Where several of these are of one text, `by_text` is what whole texts
    gain.
    `flip_margins` are the reference's leads where the label differs, the largest first, at most twenty. Of a language
    model an example is a token that comes next; only there `perplexity` is known. Of vectors,
    `neighbours_fraction` is the mean share of the ten texts nearest to each by the reference's that are among its ten
    nearest here. `commonest_fraction` is the share of the commonest true label, where each example has one.
    """

    reference: str
    batch_size: int | None
    examples: int
    accuracy_fraction: float
    reference_accuracy_fraction: float
    agreement_fraction: float
    wins: int
    losses: int
    max_error: float
    flip_margins: tuple[float, ...]
    seconds_s: float
    not_finite: int = 0
    perplexity: float | None = None
    reference_perplexity: float | None = None
    neighbours_fraction: float | None = None
    commonest_fraction: float | None = None
    by_text: TextGains | None = None

    @property
    def difference(self) -> Interval:
        """By how much it is right more often than the reference on the same examples, with a 95 % interval."""
        if (gains := self.by_text) is None:
            return accuracy_difference(self.wins, self.losses, self.examples)
        mean = (self.wins - self.losses) / self.examples
        return paired_difference(gains.texts * mean, gains.squares, gains.texts, gains.largest)


class Measurement(msgspec.Struct, frozen=True, kw_only=True, tag="measurement"):
    """One candidate in one fresh process. `quality` is empty but in the first replicate, and so is `executed`. When it
    was written down, its session had lasted `session_s`, by a clock that nobody sets.

    `peak_device_bytes` is the engine's own count, `device_bytes` the driver's. `portable` says whether an artifact can
    be packed for its runtime (CPU, without torch). `step_bytes` are the weights that a written token needs, where that
    is known.
    """

    schema_version: int
    session: str
    fingerprint: str
    replicate: int
    runtime: str
    precision: Precision
    options: tuple[str, ...] = ()
    role: Role
    portable: bool
    info: RuntimeInfo
    model_bytes: int
    model_sha256: str
    cold_start: ColdStart
    warm_ups: tuple[WarmUpSamples, ...]
    blocks: tuple[BlockSamples, ...]
    quality: tuple[Quality, ...]
    baseline_memory: MemoryReading
    memory: MemoryReading
    peak_device_bytes: int | None
    device_bytes: int | None = None
    step_bytes: int | None = None
    finished_utc: str
    executed: Executed | None = None
    session_s: float | None = None

    @property
    def entrant(self) -> Entrant:
        return Entrant(Candidate(self.runtime, self.precision, self.options), self.role)

    @property
    def process_s(self) -> float:
        """Seconds of cold start, warm-ups and blocks, waiting included."""
        return self.start_s + sum(block.spent_s for block in self.blocks)

    @property
    def start_s(self) -> float:
        """Seconds of cold start and warm-ups, before the first round."""
        return self.cold_start.total_s + sum(sum(item.samples_s) for item in self.warm_ups)

    @property
    def round_s(self) -> float:
        """Seconds of a round of all workloads, the mean of its rounds."""
        return sum(block.spent_s for block in self.blocks) / len({block.round for block in self.blocks})


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """A candidate that could not be measured: where it stopped, why, and what would help.

    `precision` is `None` when the whole runtime cannot work here.
    """

    schema_version: int
    session: str
    runtime: str
    precision: Precision | None
    options: tuple[str, ...] = ()
    role: Role
    stage: str
    reason: str
    hint: str

    @property
    def name(self) -> str:
        """The candidate's name, or the runtime's."""
        return self.runtime if self.precision is None else Candidate(self.runtime, self.precision, self.options).id


Record = Session | Measurement | Failure
_DECODER = msgspec.json.Decoder(Record)


def append(path: Path, record: Record) -> None:
    """Add one record; it is on disk when this returns."""
    append_line(path, record)


def load(path: Path) -> list[Record]:
    """Every whole record of a file, in order; lines that a kill cut short or another version wrote are left out."""
    return [record for record in read_lines(path, _DECODER.decode) if record.schema_version == SCHEMA_VERSION]
