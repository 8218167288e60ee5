"""Does LoadGen's single-stream scenario see what our own timer sees?

Run by hand on a quiet machine, after an export:

    .venv/bin/python -m benchmarks.single_stream runs/demo ort-cpu/fp32 ort-cpu/int8-dynamic

In one process, LoadGen and the closed-loop timer of `measure.timing` take turns on the very same texts in the same
order, one text at a time. The ratio is that of their medians, with a 95 % interval over repeats and fresh processes.
They should agree within 3 %: LoadGen adds its own book-keeping and two calls through Python to each latency.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from artifact.examples import read_texts
from artifact.predict.cores import usable_cores
from artifact.run_folder import RunFolder
from artifact.tokenizer import text_encoder
from measure.loadgen import drive, read_queries
from measure.source import find_models
from measure.statistics import LogRatio
from measure.timing import time_passes
from measure.traffic import Scenario, Traffic
from measure.workload import Inputs, build_inputs
from runtimes.base import Candidate, Runtime
from runtimes.registry import known_candidate, open_runtime

AGREE = 0.03


class Pair(msgspec.Struct):
    """Median seconds of the same texts, by LoadGen and by our timer."""

    loadgen_s: float
    timer_s: float


def serve(run: Path, candidate: Candidate, repeats: int, duration_s: float) -> list[Pair]:
    """One process: LoadGen and the timer in turn, each first as often as the other."""
    source = find_models(run)
    encoder = text_encoder(source.tokenizer, source.text_limits)
    inputs = build_inputs(read_texts(RunFolder(run).evaluation_data), encoder, source.text_limits, (1,), (None,))
    traffic = Traffic(scenario=Scenario.SINGLE_STREAM, duration_s=duration_s, max_batch=1)
    with open_runtime(candidate, source.model(candidate), usable_cores()) as runtime:
        _, texts = by_loadgen(runtime, inputs, traffic)
        pairs = []
        for number in range(repeats):
            if number % 2:
                ours = by_timer(runtime, inputs, texts)
                theirs, driven = by_loadgen(runtime, inputs, traffic)
            else:
                theirs, driven = by_loadgen(runtime, inputs, traffic)
                ours = by_timer(runtime, inputs, texts)
            same = min(len(ours), len(theirs))
            if driven[:same] != texts[:same]:
                raise RuntimeError("LoadGen sent other texts than before")
            pairs.append(Pair(median(theirs[:same]), median(ours[:same])))
    return pairs


def by_loadgen(runtime: Runtime, inputs: Inputs, traffic: Traffic) -> tuple[list[float], list[int]]:
    """Seconds of each query, and which text it was."""
    with TemporaryDirectory() as folder:
        seen = drive(runtime, inputs, traffic, Path(folder))
        queries = read_queries(Path(folder) / "mlperf_log_trace.json")
    return list(seen.latencies_s), [query.sample_idx for query in queries]


def by_timer(runtime: Runtime, inputs: Inputs, texts: Sequence[int]) -> list[float]:
    """Seconds of each call with these texts in this order, by our own timer."""
    names = runtime.info.input_names
    single = {text: inputs.batch([text], names) for text in set(texts)}
    return time_passes(runtime, [single[text] for text in texts], 1)


def compare(run: Path, candidate: Candidate, processes: int, repeats: int, duration_s: float) -> str:
    """One line of the table."""
    command = [sys.executable, "-m", "benchmarks.single_stream", str(run), candidate.id, "--serve"]
    command += ["--repeats", str(repeats), "--duration-s", str(duration_s)]
    groups = []
    for _ in range(processes):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        groups.append(msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Pair]))
    every = [pair for group in groups for pair in group]
    ratio = LogRatio.of([median(log(pair.loadgen_s / pair.timer_s) for pair in group) for group in groups]).interval()
    agrees = "agree" if abs(ratio.estimate - 1) <= AGREE else "DISAGREE"
    interval = "" if ratio.low is None else f" [{ratio.low:.4f}–{ratio.high:.4f}]"
    return (
        f"{candidate.id:<28} {1e3 * median(pair.loadgen_s for pair in every):8.3f} ms "
        f"{1e3 * median(pair.timer_s for pair in every):8.3f} ms {ratio.estimate:8.4f}×{interval}  {agrees}"
    )


def main() -> None:
    """Print a line for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with evaluation texts and the variants to measure")
    parser.add_argument("candidates", nargs="+", help="such as ort-cpu/fp32")
    parser.add_argument("--processes", type=int, default=4, help="fresh processes (default: 4)")
    parser.add_argument("--repeats", type=int, default=24, help="pairs in each (default: 24)")
    parser.add_argument("--duration-s", type=float, default=0.5, help="seconds of each test (default: 0.5)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    asked = [known_candidate(name) for name in options.candidates]
    if options.serve:
        print(msgspec.json.encode(serve(options.run, asked[0], options.repeats, options.duration_s)).decode())
        return
    print(f"{'candidate':<28} {'LoadGen p50':>11} {'timer p50':>11} {'LoadGen / timer':>16}")
    for candidate in asked:
        print(compare(options.run, candidate, options.processes, options.repeats, options.duration_s), flush=True)


if __name__ == "__main__":
    main()
