"""How much of a core the harness itself uses while candidates are timed.

Run by hand, with a terminal, so that the progress line is drawn as it is for a person:

    .venv/bin/python -m benchmarks.harness_share compare runs/demo --out runs/share

The arguments are those of `steelyard`. Between the moment a timed block is asked for and the moment its samples are
here, the CPU time of the harness's own process, all of its threads included, is taken beside the time on the wall.
"""

import sys
import time
from typing import TypeVar

from cli import app
from measure.messages import AnyRequest, Block, Reply
from measure.process import WorkerProcess

R = TypeVar("R", bound=Reply)


class Share:
    """CPU and wall seconds of the harness within timed blocks."""

    def __init__(self) -> None:
        self.blocks = 0
        self.cpu_s = 0.0
        self.wall_s = 0.0

    def watch(self) -> None:
        """Measure every block that this process asks a worker for."""
        plain = WorkerProcess.ask

        def ask(worker: WorkerProcess, request: AnyRequest, kind: type[R], timeout_s: float) -> R:
            if not isinstance(request, Block):
                return plain(worker, request, kind, timeout_s)
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            try:
                return plain(worker, request, kind, timeout_s)
            finally:
                self.blocks += 1
                self.cpu_s += time.process_time() - cpu_s
                self.wall_s += time.perf_counter() - wall_s

        setattr(WorkerProcess, "ask", ask)  # noqa: B010  mypy refuses the plain assignment


def main() -> None:
    """Run one command of the tool, then print the harness's share."""
    share = Share()
    share.watch()
    try:
        app(sys.argv[1:])
    except SystemExit as ended:
        if ended.code:
            raise
    print(
        f"harness: {share.cpu_s / share.wall_s:.3%} of a core, {share.cpu_s / share.blocks * 1e6:.0f} µs of CPU for "
        f"each of {share.blocks} timed blocks ({share.wall_s:.0f} s)"
    )


if __name__ == "__main__":
    main()
