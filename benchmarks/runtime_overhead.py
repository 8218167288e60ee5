"""What `Runtime.run` costs over a hand-written loop of the same engine, for every CPU candidate of a run.

Run by hand on a quiet machine, after an export of all precisions:

    .venv/bin/python -m benchmarks.runtime_overhead runs/all

For each candidate two processes live side by side, one with the runtime, one with the loop of `benchmarks.by_hand`.
They take turns in short blocks, and wait on a pipe meanwhile. The added time at 1×16 is the median over the pairs of
blocks of the difference of their medians; the ratio at 8×128 has a 95 % interval over the pairs.
"""

import argparse
import os
import subprocess
import sys
from math import log
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np

from artifact.predict import usable_cores
from benchmarks.by_hand import BY_HAND, Batch, Call
from errors import UserError
from measure.source import find_models
from measure.statistics import ratio_interval
from runtimes.base import Candidate
from runtimes.registry import candidates, known_candidate, open_runtime, worthwhile

SMALL, LARGE = (1, 16), (8, 128)
CALLS = {SMALL: 30, LARGE: 4}
WARM_UP = 10
SETTLE_S = 0.1


def make_batch(shape: tuple[int, int]) -> Batch:
    """BERT's inputs: ordinary ids, nothing padded."""
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def serve(run: Path, candidate: Candidate, *, by_hand: bool) -> None:
    """One side: for each line `ROWS LENGTH` on standard input, the median seconds of a block on standard output."""
    threads, model = usable_cores(), find_models(run).model(candidate)
    if by_hand:
        answer(BY_HAND[candidate.runtime](model, candidate.precision.value, frozenset(candidate.options), threads))
        return
    with open_runtime(candidate, model, threads) as runtime:
        answer(runtime.run)


def answer(call: Call) -> None:
    """Warm up, say so, then time blocks until the input ends."""
    for shape in (SMALL, LARGE):
        for _ in range(WARM_UP):
            call(make_batch(shape))
    print("ready", flush=True)
    for line in sys.stdin:
        rows, length = map(int, line.split())
        batch, samples = make_batch((rows, length)), []
        call(batch)
        for _ in range(CALLS[rows, length]):
            start = perf_counter()
            call(batch)
            samples.append(perf_counter() - start)
        print(median(samples), flush=True)


class Side:
    """One of the two processes."""

    def __init__(self, run: Path, candidate: Candidate, side: str) -> None:
        command = [sys.executable, "-m", "benchmarks.runtime_overhead", str(run), candidate.id, "--serve", side]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._read()

    def block(self, shape: tuple[int, int]) -> float:
        """Median seconds of a block."""
        sleep(SETTLE_S)
        if self._process.stdin:
            self._process.stdin.write(f"{shape[0]} {shape[1]}\n")
            self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("the process ended")
        return line

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def compare(run: Path, candidate: Candidate, pairs: int) -> str:
    """One line of the table."""
    ours, theirs = Side(run, candidate, "runtime"), Side(run, candidate, "by-hand")
    found: dict[tuple[int, int], list[tuple[float, float]]] = {SMALL: [], LARGE: []}
    for number in range(pairs):
        for shape, blocks in found.items():
            if number % 2:
                second = theirs.block(shape)
                blocks.append((ours.block(shape), second))
            else:
                blocks.append((ours.block(shape), theirs.block(shape)))
    ours.close()
    theirs.close()
    added = median(a - b for a, b in found[SMALL])
    ratio = ratio_interval([[log(a / b)] for a, b in found[LARGE]], seed=0)
    small, large = (median(a for a, _ in found[shape]) for shape in (SMALL, LARGE))
    return (
        f"{candidate.id:<40} {small * 1e3:7.2f} ms {added * 1e6:+6.0f} µs {large * 1e3:9.1f} ms "
        f"{ratio.estimate:6.3f}× [{ratio.low:.3f}–{ratio.high:.3f}]"
    )


def main() -> None:
    """Print a line for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with the variants to measure")
    parser.add_argument("candidates", nargs="*", help="such as ort-cpu/fp32 (default: every CPU candidate)")
    parser.add_argument("-n", type=int, default=20, help="pairs of blocks (default: 20)")
    parser.add_argument("--serve", choices=("runtime", "by-hand"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    asked = [known_candidate(name) for name in options.candidates]
    if options.serve:
        serve(options.run, asked[0], by_hand=options.serve == "by-hand")
        return
    source = find_models(options.run)
    print(f"{'candidate':<40} {'1×16':>10} {'run adds':>9} {'8×128':>12} {'run / by hand':>22}")
    for candidate in asked or worthwhile(candidates(tuple(BY_HAND), None)):
        try:
            source.model(candidate)
        except UserError:
            continue
        print(compare(options.run, candidate, options.n), flush=True)


if __name__ == "__main__":
    main()
