"""The process in which one candidate runs. It speaks JSON lines on its standard streams and ends with its input."""

import gc
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from artifact.predict.tokens import TextEncoder
from artifact.tokenizer import text_encoder
from errors import UserError
from measure.energy import Meter, find_domains
from measure.loadgen import drive
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
from measure.pipeline import TextRuntime, in_turn, overlapped
from measure.streams import leave, own_streams
from measure.timing import time_device_passes, time_passes, warm_up
from measure.workload import Inputs, load_inputs
from runtimes.base import Batch, Runtime
from runtimes.registry import is_calibrated, open_runtime, probe

MEMORY = "free some, or compare smaller batches and shorter lengths"


class Worker:
    """One candidate, from `Open` to the end of the input."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._inputs: Inputs | None = None
        self._encoder: TextEncoder | None = None
        self._domains = find_domains()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runtime is not None:
            self._runtime.__exit__(kind, error, trace)

    def answer(self, request: AnyRequest) -> AnyReply:
        """Do what was asked. Raises what the runtime raises."""
        match request:
            case Probe(runtimes=names):
                return Probed(available=tuple(probe(name) for name in names))
            case Open():
                return self._open(request)
            case WarmUp(workload=number, limit_s=limit_s):
                return self._warm_up(number, limit_s)
            case Block(workload=number, passes=passes) if texts := self.inputs.workloads[number].texts:
                subject = self._text_runtime(number)
                primer = time_passes(subject, [texts], 1)
                samples = time_passes(subject, [texts], passes)
                return Timed(samples_s=tuple(samples), primer_s=primer[0], tokenise_s=tuple(subject.tokenise_s[1:]))
            case Block(workload=number, passes=passes):
                batches = self._batches(number)
                primer = time_passes(self.runtime, batches[:1], 1)
                meter = Meter(self._domains)
                samples = time_passes(self.runtime, batches, passes)
                energy_j = meter.joules()
                on_device = time_device_passes(self.runtime, batches, passes)
                return Timed(
                    samples_s=tuple(samples),
                    device_samples_s=tuple(on_device),
                    primer_s=primer[0],
                    energy_j=energy_j,
                )
            case Score(batch_size=batch_size, path=path):
                return self._score(batch_size, Path(path))
            case Weigh():
                return Weighed(
                    memory=read_memory(),
                    peak_device_bytes=self.runtime.peak_device_bytes(),
                    device_bytes=None if self.runtime.info.device.startswith("cpu") else read_device_bytes(),
                )
            case Explain(workload=number):
                return Explained(executed=self.runtime.executed(self._batches(number)[0]))
            case Drive(traffic=traffic, folder=folder):
                return Driven(observed=drive(self.runtime, self.inputs, traffic, Path(folder)))

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("no candidate is open")
        return self._runtime

    @property
    def inputs(self) -> Inputs:
        if self._inputs is None:
            raise RuntimeError("no candidate is open")
        return self._inputs

    def _open(self, request: Open) -> Opened:
        self._inputs = load_inputs(Path(request.inputs))
        first = self._inputs.workloads[-1].batches[0]
        calibration = self._inputs.calibration_batches() if is_calibrated(request.candidate) else ()
        baseline = read_memory()
        start = time.perf_counter()
        runtime = open_runtime(request.candidate, Path(request.model), request.threads, calibration)
        imported = time.perf_counter()
        self._runtime = runtime.__enter__()
        loaded = time.perf_counter()
        names = self._runtime.info.input_names
        self._runtime.run({name: first[name][:1] for name in names})
        answered = time.perf_counter()
        gc.collect()
        gc.freeze()  # what the engine made stays out of later collections, which take 0.1 s each in a torch process
        return Opened(
            info=self._runtime.info,
            import_s=imported - start,
            load_s=loaded - imported,
            first_run_s=answered - loaded,
            baseline_memory=baseline,
            loaded_memory=read_memory(),
        )

    def _warm_up(self, number: int, limit_s: float) -> Timed:
        if texts := self.inputs.workloads[number].texts:
            samples, level = warm_up(self._text_runtime(number), [texts], limit_s)
        else:
            samples, level = warm_up(self.runtime, self._batches(number), limit_s)
        return Timed(samples_s=tuple(samples), level=level)

    def _batches(self, number: int) -> list[Batch]:
        names = self.runtime.info.input_names
        return [{name: batch[name] for name in names} for batch in self.inputs.workloads[number].batches]

    def _text_runtime(self, number: int) -> TextRuntime:
        """The open runtime as a workload that starts from texts uses it. The tokenizer is loaded by the first one, so
        that it is no part of the cold start."""
        if self._encoder is None:
            if self.inputs.tokenizer is None:
                raise RuntimeError("texts come with a tokenizer")
            self._encoder = text_encoder(Path(self.inputs.tokenizer.folder), self.inputs.limits)
        way = overlapped if self.inputs.workloads[number].spec.is_overlapped else in_turn
        return TextRuntime(self.runtime, self._encoder, way)

    def _score(self, batch_size: int | None, path: Path) -> Scored:
        start = time.perf_counter()
        names = self.runtime.info.input_names
        rows = self.inputs.evaluation_rows(batch_size)
        logits = np.concatenate([self.runtime.run(self.inputs.batch(part, names))["logits"] for part in rows])
        in_order = np.empty_like(logits)
        in_order[np.concatenate(rows)] = logits
        np.savez(path, logits=in_order)
        return Scored(seconds_s=time.perf_counter() - start)


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
