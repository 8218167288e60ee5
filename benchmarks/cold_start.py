"""Seconds and memory from starting a process to its first answer: a packed artifact beside transformers' pipeline.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.cold_start runs/demo

Both answer the same text from the same fine-tuned model, in turn, each in a fresh process with a warm page cache. The
artifact runs where it would be shipped to: in an environment of this Python with its requirements.txt alone. Seconds
are those of the whole process as its parent sees it; memory is the peak resident set that the kernel reports for it
(`ru_maxrss`, shared pages counted in full on both sides).
"""

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.processes import finished, ratio

TEXT = "A quiet, patient film that stays with you for days."
PIPELINE = """
import sys
from transformers import pipeline
answer = pipeline("text-classification", model=sys.argv[1], device="cpu")(sys.argv[2])[0]
print(answer["label"], answer["score"], sep="\\t")
"""


def main() -> None:
    """Print both sides' medians and the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that was packed into RUN/artifact")
    parser.add_argument("-n", type=int, default=10, help="pairs of processes (default: 10)")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with TemporaryDirectory(prefix="steelyard-") as folder:
        venv.create(folder, with_pip=True)
        python, artifact = f"{folder}/bin/python", options.run / "artifact"
        install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r"]
        subprocess.run([*install, str(artifact / "requirements.txt")], check=True)
        compare([python, str(artifact / "predict.py"), TEXT], options.run / "checkpoint", options.n)


def compare(artifact: Sequence[str], checkpoint: Path, count: int) -> None:
    """Run both sides in turn."""
    pipeline = [sys.executable, "-c", PIPELINE, str(checkpoint), TEXT]
    for command in (artifact, pipeline):
        finished(command)
    pairs = [(finished(artifact), finished(pipeline)) for _ in range(count)]
    labels = {run.printed.partition("\t")[0] for pair in pairs for run in pair}
    ours, theirs = zip(*pairs, strict=True)
    print(f"{count} pairs of fresh processes, all answered {', '.join(sorted(labels))}")
    for name, runs in (("artifact: predict.py", ours), ("transformers pipeline", theirs)):
        seconds_s, peak = median(run.seconds_s for run in runs), median(run.peak_bytes for run in runs)
        print(f"{name:<22} {seconds_s:6.2f} s {peak / 1e6:6.0f} MB")
    seconds_ratio = ratio([run.seconds_s for run in ours], [run.seconds_s for run in theirs])
    memory_ratio = ratio([run.peak_bytes for run in ours], [run.peak_bytes for run in theirs])
    print(f"the pipeline takes {seconds_ratio} the time and {memory_ratio} the memory")


if __name__ == "__main__":
    main()
