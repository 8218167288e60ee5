"""Seconds and memory from starting a process to its first answer: a packed artifact beside transformers' pipeline.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.cold_start runs/demo

Both answer the same text from the same fine-tuned model, in turn, each in a fresh process with a warm page cache.
Seconds are those of the whole process as its parent sees it; memory is the peak resident set that the kernel reports
for it (`ru_maxrss`, shared pages counted in full on both sides).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from time import perf_counter

from measure.statistics import LogRatio

TEXT = "A quiet, patient film that stays with you for days."
PIPELINE = """
import sys
from transformers import pipeline
answer = pipeline("text-classification", model=sys.argv[1], device="cpu")(sys.argv[2])[0]
print(answer["label"], answer["score"], sep="\\t")
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One process: its wall-clock seconds, its peak resident bytes, and the label it answered."""

    seconds_s: float
    peak_bytes: int
    label: str


def measure(command: Sequence[str]) -> Run:
    """Run a command that prints a label and a tab first. Raises `RuntimeError` when it fails."""
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        printed = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds_s = perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{command[:3]} ended with code {process.returncode}")
    return Run(seconds_s, used.ru_maxrss * 1024, printed.partition("\t")[0])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Paired ratio theirs / ours with its 95 % interval."""
    found = LogRatio.of([[log(b / a)] for a, b in zip(ours, theirs, strict=True)]).interval()
    return f"{found.estimate:.1f}× [{found.low:.1f}–{found.high:.1f}]"


def main() -> None:
    """Print both sides' medians and the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that was packed into RUN/artifact")
    parser.add_argument("-n", type=int, default=10, help="pairs of processes (default: 10)")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    artifact = [sys.executable, str(options.run / "artifact" / "predict.py"), TEXT]
    pipeline = [sys.executable, "-c", PIPELINE, str(options.run / "checkpoint"), TEXT]
    for command in (artifact, pipeline):
        measure(command)
    pairs = [(measure(artifact), measure(pipeline)) for _ in range(options.n)]
    labels = {run.label for pair in pairs for run in pair}
    ours, theirs = zip(*pairs, strict=True)
    print(f"{options.n} pairs of fresh processes, all answered {', '.join(sorted(labels))}")
    for name, runs in (("artifact: predict.py", ours), ("transformers pipeline", theirs)):
        seconds_s, peak = median(run.seconds_s for run in runs), median(run.peak_bytes for run in runs)
        print(f"{name:<22} {seconds_s:6.2f} s {peak / 1e6:6.0f} MB")
    seconds_ratio = ratios([run.seconds_s for run in ours], [run.seconds_s for run in theirs])
    memory_ratio = ratios([run.peak_bytes for run in ours], [run.peak_bytes for run in theirs])
    print(f"the pipeline takes {seconds_ratio} the time and {memory_ratio} the memory")


if __name__ == "__main__":
    main()
