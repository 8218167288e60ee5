"""What `Runtime.run` costs over the engine's own call, and whether the engine is at its best, for every CPU candidate.

Run by hand on a quiet machine, after an export of all precisions:

    .venv/bin/python -m benchmarks.runtime_overhead runs/all

"run adds" compares `run` with a bare call of the same open engine, in one process, call by call in turn, at 1×16: the
median of the differences. "run / by hand" compares it at 8×128 with a loop that somebody wrote without Steelyard
(`benchmarks.by_hand`), in a process of its own. Both processes take turns in short blocks and wait on a pipe meanwhile.
The ratio has a 95 % interval over blocks and over pairs of fresh processes, which differ by some percent.
"""

import argparse
import os
import subprocess
import sys
from math import log
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import TextIO

import numpy as np

from artifact.examples import read_texts
from artifact.predict.cores import usable_cores
from artifact.run_folder import RunFolder
from benchmarks.by_hand import BARE, BY_HAND, Batch, Call
from errors import UserError
from measure.source import find_models
from measure.statistics import LogRatio
from measure.workload import CALIBRATION_EXAMPLES, CALIBRATION_ROWS
from runtimes.base import Candidate
from runtimes.registry import candidates, is_calibrated, known_candidate, open_runtime, worthwhile

SMALL, LARGE = (1, 16), (8, 128)
PAIRS_OF_CALLS = 500
CALLS_IN_A_BLOCK = 4
WARM_UP = 20
SETTLE_S = 0.1


def make_batch(shape: tuple[int, int]) -> Batch:
    """BERT's inputs: ordinary ids, nothing padded."""
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def training_batches(run: Path, tokenizer: Path) -> list[Batch]:
    """As many of the run's training texts as `compare` calibrates on, tokenised by transformers."""
    from transformers import AutoTokenizer

    encode = AutoTokenizer.from_pretrained(tokenizer)
    texts = list(read_texts(RunFolder(run).training_data)[:CALIBRATION_EXAMPLES])
    parts = [texts[start : start + CALIBRATION_ROWS] for start in range(0, len(texts), CALIBRATION_ROWS)]
    return [dict(encode(part, padding=True, truncation=True, return_tensors="np")) for part in parts]


def seconds(call: Call, batch: Batch) -> float:
    """One call."""
    start = perf_counter()
    call(batch)
    return perf_counter() - start


def serve(run: Path, candidate: Candidate, replies: TextIO, *, by_hand: bool) -> None:
    """One side: what `run` adds first, then for each line on standard input the median seconds of a block."""
    source, threads = find_models(run), usable_cores()
    model = source.model(candidate)
    calibration = training_batches(run, source.tokenizer) if is_calibrated(candidate) else [make_batch((8, 64))]
    if by_hand:
        options = frozenset(candidate.options)
        call = BY_HAND[candidate.runtime](model, candidate.precision.value, options, threads, calibration)
        print(0.0, 0.0, file=replies, flush=True)
        answer(call, replies)
        return
    with open_runtime(candidate, model, threads, calibration) as runtime:
        print(*added(runtime.run, BARE[candidate.runtime](runtime)), file=replies, flush=True)
        answer(runtime.run, replies)


def added(ours: Call, bare: Call) -> tuple[float, float]:
    """Median seconds of `ours`, and the median of what it takes more than `bare`, call by call in turn."""
    batch = make_batch(SMALL)
    for _ in range(WARM_UP):
        ours(batch)
        bare(batch)
    pairs = []
    for number in range(PAIRS_OF_CALLS):
        if number % 2:
            second = seconds(bare, batch)
            pairs.append((seconds(ours, batch), second))
        else:
            pairs.append((seconds(ours, batch), seconds(bare, batch)))
    return median(a for a, _ in pairs), median(a - b for a, b in pairs)


def answer(call: Call, replies: TextIO) -> None:
    """Time a block at 8×128 whenever a line comes, until the input ends."""
    batch = make_batch(LARGE)
    for _ in range(WARM_UP // 2):
        call(batch)
    for _ in sys.stdin:
        call(batch)
        print(median(seconds(call, batch) for _ in range(CALLS_IN_A_BLOCK)), file=replies, flush=True)


class Side:
    """One of the two processes; `small_s` and `added_s` are what it measured by itself."""

    def __init__(self, run: Path, candidate: Candidate, side: str) -> None:
        command = [sys.executable, "-m", "benchmarks.runtime_overhead", str(run), candidate.id, "--serve", side]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.small_s, self.added_s = map(float, self._read().split())

    def block(self) -> float:
        """Median seconds of a block."""
        sleep(SETTLE_S)
        if self._process.stdin:
            self._process.stdin.write("go\n")
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


def compare(run: Path, candidate: Candidate, processes: int, blocks: int) -> str:
    """One line of the table."""
    small, more, large, ratios = [], [], [], []
    for _ in range(processes):
        ours, theirs = Side(run, candidate, "runtime"), Side(run, candidate, "by-hand")
        pairs = []
        for number in range(blocks):
            if number % 2:
                second = theirs.block()
                pairs.append((ours.block(), second))
            else:
                pairs.append((ours.block(), theirs.block()))
        small.append(ours.small_s)
        more.append(ours.added_s)
        large += [a for a, _ in pairs]
        ratios.append(median(log(a / b) for a, b in pairs))
        ours.close()
        theirs.close()
    ratio = LogRatio.of(ratios).interval()
    return (
        f"{candidate.id:<46} {median(small) * 1e3:7.2f} ms {median(more) * 1e6:+6.0f} µs {median(large) * 1e3:9.1f} ms "
        f"{ratio.estimate:6.3f}× [{ratio.low:.3f}–{ratio.high:.3f}]"
    )


def main() -> None:
    """Print a line for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with the variants to measure")
    parser.add_argument("candidates", nargs="*", help="such as ort-cpu/fp32 (default: every CPU candidate)")
    parser.add_argument("--processes", type=int, default=4, help="pairs of fresh processes (default: 4)")
    parser.add_argument("--blocks", type=int, default=8, help="pairs of blocks in each (default: 8)")
    parser.add_argument("--serve", choices=("runtime", "by-hand"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    asked = [known_candidate(name) for name in options.candidates]
    if options.serve:
        replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # some engines print
        serve(options.run, asked[0], replies, by_hand=options.serve == "by-hand")
        return
    source = find_models(options.run)
    print(f"{'candidate':<46} {'1×16':>10} {'run adds':>9} {'8×128':>12} {'run / by hand':>22}")
    for candidate in asked or worthwhile(candidates(tuple(BY_HAND), None, every=True)):
        try:
            source.model(candidate)
        except UserError:
            continue
        print(compare(options.run, candidate, options.processes, options.blocks), flush=True)


if __name__ == "__main__":
    main()
