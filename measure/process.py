"""A worker process as the harness sees it: started, asked, and gone whatever happens."""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import msgspec

from measure.messages import ENCODER, REPLIES, Failed, Reply, Request

R = TypeVar("R", bound=Reply)
ROOT = Path(__file__).resolve().parent.parent
LAST_WORDS = 400
KILLED = "a system that runs out of memory ends processes like that: free some, or compare smaller batches"


class WorkerFailed(Exception):
    """A worker refused, crashed or did not answer in time."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class WorkerProcess:
    """A fresh interpreter that runs one candidate, or whatever `module` does; `replies` decodes what it says. Where it
    is not `offline`, it may ask a hub as this process may.

    The harness waits in the kernel for its replies and burns no CPU meanwhile. `started` is the moment before the
    process was made, on `time.perf_counter`.
    """

    def __init__(
        self,
        threads: int,
        module: str = "measure.worker",
        replies: msgspec.json.Decoder[Any] = REPLIES,
        *,
        offline: bool = True,
    ) -> None:
        self._replies = replies
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            **({"HF_HUB_OFFLINE": "1"} if offline else {}),
        }
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in __exit__
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            bufsize=0,
        )
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request, kind: type[R], timeout_s: float) -> R:
        """Send a request and sleep until its reply.

        Raises `WorkerFailed` when the worker refuses, dies, answers something else, or takes longer than `timeout_s`
        (it is killed then).
        """
        if self._process.stdin is None:
            raise RuntimeError("a worker is always started with a pipe")
        try:
            self._process.stdin.write(ENCODER.encode(request) + b"\n")
        except BrokenPipeError:
            raise self._obituary() from None
        reply = self._replies.decode(self._read_line(timeout_s))
        if isinstance(reply, Failed):
            raise WorkerFailed(reply.reason, reply.hint)
        if not isinstance(reply, kind):
            raise WorkerFailed(f"the worker answered {type(reply).__name__} to {type(request).__name__}")
        return reply

    def close(self) -> None:
        """End the worker: its input ends first, then it is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _read_line(self, timeout_s: float) -> bytes:
        if self._process.stdout is None:
            raise RuntimeError("a worker is always started with a pipe")
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._process.kill()
                    raise WorkerFailed(f"no answer within {timeout_s:.0f} s, so the process was ended")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._obituary()
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _obituary(self) -> WorkerFailed:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its output, but lives
            self._process.kill()
            code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = KILLED if code == -signal.SIGKILL else ""
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip()[-LAST_WORDS:]
        return WorkerFailed(f"the process {how}" + (f": …{words}" if words else ""), hint)
