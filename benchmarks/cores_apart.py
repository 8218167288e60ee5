"""What a virtual machine's pace has to do with where its CPUs lie: calls timed between two looks at them.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.cores_apart runs/demo

Each candidate has a process of its own. Again and again it sleeps for a moment, looks at how long CPUs need to hand a
cache line over, calls the model at 1×128 for a fifth of a second, and looks again. Blocks of which both looks tell the
same are told apart by it; the machine alone decides which.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from artifact.predict.cores import usable_cores
from benchmarks.runtime_overhead import make_batch, seconds
from measure.core_distance import is_apart, least_latency
from measure.core_latency import CoreLatency
from measure.source import find_models
from runtimes.base import Candidate
from runtimes.registry import known_candidate, open_runtime

SHAPE = (1, 128)
CANDIDATES = "ort-cpu/int8-dynamic,ort-cpu/fp32,openvino-cpu/bf16,openvino-cpu/fp32,torch-cpu/bf16,torch-cpu/fp32"
PAUSE_S, BLOCK_S, WARM_UP = 0.05, 0.2, 20


def watch(run: Path, candidate: Candidate, threads: int, duration_s: float) -> str:
    """One line of the table."""
    batch, blocks = make_batch(SHAPE), []
    model = find_models(run).model(candidate)
    with open_runtime(candidate, model, threads, ()) as runtime, CoreLatency(usable_cores()) as cores:
        for _ in range(WARM_UP):
            runtime.run(batch)
        end = perf_counter() + duration_s
        while perf_counter() < end:
            sleep(PAUSE_S)
            before, calls, stop = cores.look(), [], perf_counter() + BLOCK_S
            while perf_counter() < stop:
                calls.append(seconds(runtime.run, batch))
            blocks.append((median(calls), before, cores.look()))
    looks = [ns for _, *both in blocks for ns in both if ns is not None]
    least_ns = least_latency(looks)
    if least_ns is None:
        return f"{candidate.id:<22} nothing can be seen here"
    told = []
    for apart in (False, True):
        lying = [
            call_s
            for call_s, before, after in blocks
            if before is not None and after is not None
            if is_apart(before, least_ns) is apart and is_apart(after, least_ns) is apart
        ]
        told.append(f"{len(lying):4} blocks, {1e3 * median(lying):6.2f} ms" if lying else f"{'none':>21}")
    return f"{candidate.id:<22} {threads:>7}  {told[0]}  {told[1]}   {min(looks):.0f} to {max(looks):.0f} ns"


def main() -> None:
    """Print a line for each candidate and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that was exported, such as the demo's")
    parser.add_argument("--candidates", default=CANDIDATES)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--duration-s", type=float, default=45.0)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(watch(options.run, known_candidate(options.candidates), options.threads, options.duration_s))
        return
    print(f"{'candidate':<22} threads  {'CPUs together':>21}  {'CPUs apart':>21}   looks")
    for name in options.candidates.split(","):
        command = [sys.executable, "-m", "benchmarks.cores_apart", str(options.run), "--alone", "--candidates", name]
        command += ["--threads", str(options.threads), "--duration-s", str(options.duration_s)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        print(done.stdout.rstrip(), flush=True)


if __name__ == "__main__":
    main()
