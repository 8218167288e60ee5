"""What the harness and a worker say to each other: one JSON line each way, typed by its tag."""

import msgspec

from measure.memory import MemoryReading
from measure.traffic import Observed, Traffic
from runtimes.base import Availability, Candidate, Executed, RuntimeInfo


class Request(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Harness to worker."""


class Probe(Request, frozen=True):
    """Say which of these runtimes can work."""

    runtimes: tuple[str, ...]


class Open(Request, frozen=True):
    """Load a candidate and answer the first batch."""

    candidate: Candidate
    model: str
    threads: int
    inputs: str


class WarmUp(Request, frozen=True):
    """Run a workload until its times are level."""

    workload: int
    limit_s: float


class Block(Request, frozen=True):
    """One untimed call, then `passes` timed passes over a workload from host to host, then as many on the device alone
    where host and device are not the same."""

    workload: int
    passes: int


class Score(Request, frozen=True):
    """Answer every evaluation text and write the logits to `path`: `batch_size` at a time, or batched by length as an
    artifact serves them (`None`)."""

    batch_size: int | None
    path: str


class Weigh(Request, frozen=True):
    """Read the memory."""


class Explain(Request, frozen=True):
    """Say what the engine executes for the first batch of a workload."""

    workload: int


class Drive(Request, frozen=True):
    """Let LoadGen send traffic of evaluation texts; its log files go into `folder`."""

    traffic: Traffic
    folder: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Worker to harness."""


class Probed(Reply, frozen=True):
    """Which runtimes can work."""

    available: tuple[Availability, ...]


class Opened(Reply, frozen=True):
    """`import_s`, `load_s` and `first_run_s` are parts of the cold start; memory before the engine and after the first
    answer."""

    info: RuntimeInfo
    import_s: float
    load_s: float
    first_run_s: float
    baseline_memory: MemoryReading
    loaded_memory: MemoryReading


class Timed(Reply, frozen=True):
    """Seconds of each call in order, `device_samples_s` of those on the device alone; `primer_s` is the untimed first,
    `energy_j` what the processor took meanwhile (`None` where it has no counter), `level` whether a warm-up became
    level. `tokenise_s` are the seconds of tokenising in each sample of a block that starts from texts."""

    samples_s: tuple[float, ...]
    device_samples_s: tuple[float, ...] = ()
    primer_s: float | None = None
    energy_j: float | None = None
    level: bool = True
    tokenise_s: tuple[float, ...] = ()


class Scored(Reply, frozen=True):
    """The logits are written; the seconds that it took."""

    seconds_s: float


class Weighed(Reply, frozen=True):
    """Memory now, and the most that was held on the device by the engine's own count; `device_bytes` is what the driver
    counts now. `None` where there is no device, or nobody knows."""

    memory: MemoryReading
    peak_device_bytes: int | None
    device_bytes: int | None = None


class Explained(Reply, frozen=True):
    """What one run executes; `None` where the engine cannot tell."""

    executed: Executed | None


class Driven(Reply, frozen=True):
    """What LoadGen saw."""

    observed: Observed


class Failed(Reply, frozen=True):
    """The request could not be done. `ours` marks an exception that is no `UserError`."""

    reason: str
    hint: str
    ours: bool


AnyRequest = Probe | Open | WarmUp | Block | Score | Weigh | Explain | Drive
AnyReply = Probed | Opened | Timed | Scored | Weighed | Explained | Driven | Failed
REQUESTS = msgspec.json.Decoder(AnyRequest)
REPLIES = msgspec.json.Decoder(AnyReply)
ENCODER = msgspec.json.Encoder()
