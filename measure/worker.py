"""The process in which one candidate runs. It speaks JSON lines on its standard streams and ends with its input."""

import gc
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from errors import UserError
from measure.answering import Answering
from measure.energy import find_domains
from measure.memory import read_device_bytes, read_memory
from measure.messages import (
    ENCODER,
    REQUESTS,
    AnyReply,
    AnyRequest,
    Block,
    Drive,
    Driven,
    Explain,
    Explained,
    Failed,
    Open,
    Opened,
    Probe,
    Probed,
    Score,
    Scored,
    Timed,
    WarmUp,
    Weigh,
    Weighed,
)
from measure.streams import leave, own_streams
from measure.traffic import Observed, Traffic
from measure.workload import load_inputs
from measure.writing import Writing
from runtimes.base import Executed, RuntimeInfo
from runtimes.registry import is_calibrated, open_language, open_runtime, probe

MEMORY = "free some, or compare smaller batches and shorter lengths"


class Bench(Protocol):
    """A runtime on the workloads that it is measured on; opened on entry, released on exit."""

    @property
    def info(self) -> RuntimeInfo:
        """What really ran."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def answer_first(self) -> None:
        """The first answer, which ends the cold start."""

    def warm_up(self, number: int, limit_s: float) -> Timed:
        """Passes over a workload until their times are level or `limit_s` seconds are over."""

    def block(self, number: int, passes: int) -> Timed:
        """One call that is not counted, then so many passes over a workload."""

    def score(self, batch_size: int | None, path: Path) -> float:
        """Write the answers to the evaluation texts to `path`; the seconds that it took."""

    def executed(self, number: int) -> Executed | None:
        """What the engine executes for a workload; `None` where it cannot tell."""

    def peak_device_bytes(self) -> int | None:
        """Most accelerator memory held so far."""

    def drive(self, traffic: Traffic, folder: Path) -> Observed:
        """Let LoadGen send traffic; its files go into `folder`."""


class Worker:
    """One candidate, from `Open` to the end of the input."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bench is not None:
            self._bench.__exit__(kind, error, trace)

    def answer(self, request: AnyRequest) -> AnyReply:
        """Do what was asked. Raises what the runtime raises."""
        match request:
            case Probe(runtimes=names):
                return Probed(available=tuple(probe(name) for name in names))
            case Open():
                return self._open(request)
            case WarmUp(workload=number, limit_s=limit_s):
                return self.bench.warm_up(number, limit_s)
            case Block(workload=number, passes=passes):
                return self.bench.block(number, passes)
            case Score(batch_size=batch_size, path=path):
                return Scored(seconds_s=self.bench.score(batch_size, Path(path)))
            case Weigh():
                return Weighed(
                    memory=read_memory(),
                    peak_device_bytes=self.bench.peak_device_bytes(),
                    device_bytes=None if self.bench.info.device.startswith("cpu") else read_device_bytes(),
                )
            case Explain(workload=number):
                return Explained(executed=self.bench.executed(number))
            case Drive(traffic=traffic, folder=folder):
                return Driven(observed=self.bench.drive(traffic, Path(folder)))

    @property
    def bench(self) -> Bench:
        if self._bench is None:
            raise RuntimeError("no candidate is open")
        return self._bench

    def _open(self, request: Open) -> Opened:
        inputs = load_inputs(Path(request.inputs))
        calibration = inputs.calibration_batches() if is_calibrated(request.candidate) else ()
        domains = find_domains()
        baseline = read_memory()
        start = time.perf_counter()
        if inputs.writes:
            language = open_language(request.candidate, Path(request.model), request.threads)
            bench: Bench = Writing(language, inputs, domains)
        else:
            runtime = open_runtime(request.candidate, Path(request.model), request.threads, calibration, inputs.head)
            bench = Answering(runtime, inputs, domains)
        imported = time.perf_counter()
        self._bench = bench.__enter__()
        loaded = time.perf_counter()
        self._bench.answer_first()
        answered = time.perf_counter()
        gc.collect()
        gc.freeze()  # what the engine made stays out of later collections, which take 0.1 s each in a torch process
        return Opened(
            info=self._bench.info,
            import_s=imported - start,
            load_s=loaded - imported,
            first_run_s=answered - loaded,
            baseline_memory=baseline,
            loaded_memory=read_memory(),
        )


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until the input ends, which it also does when the harness is killed."""
    with Worker() as worker:
        for line in requests:
            try:
                answer = ENCODER.encode(worker.answer(REQUESTS.decode(line)))
            except UserError as error:
                answer = ENCODER.encode(Failed(reason=error.message, hint=error.hint, ours=False))
            except MemoryError as error:
                answer = ENCODER.encode(Failed(reason=f"it ran out of memory: {error}", hint=MEMORY, ours=False))
            except Exception as error:  # one candidate's failure is a row of the table, not the end of the comparison
                traceback.print_exc()
                answer = ENCODER.encode(Failed(reason=f"{type(error).__name__}: {error}", hint="", ours=True))
            replies.write(answer + b"\n")
            replies.flush()


def main() -> None:
    """Serve until the input ends."""
    requests, replies = own_streams()
    serve(requests, replies)
    leave(replies)


if __name__ == "__main__":
    main()
