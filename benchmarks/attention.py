"""What one operator for attention saves: the same int8 model in parts and fused, its time and its memory.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.attention runs/demo --threads 2

Both graphs come from the run's fp32 file and are rounded alike. Calls take turns, and ratios are medians of those of
neighbours. Memory is what a process holds more after a few calls than when it had loaded.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from artifact.precision import Precision
from artifact.predict.session import SERVES, SessionConfig, open_session
from artifact.run_folder import RunFolder
from benchmarks.processes import finished
from measure.memory import read_memory

SHAPES = ((1, 16), (1, 128), (1, 512), (2, 256), (4, 256), (8, 16), (8, 128), (16, 32))
CALLS = 60
CALLS_OF_MEMORY = 5
CONFIG = SessionConfig(spinning=False, memory_pattern=False)
"""Threads of one session would wait in a loop while the other computes."""


def opened(path: Path, threads: int) -> Any:
    """A session as artifacts open it, but for its idle threads."""
    return open_session(path, provider=SERVES, threads=threads, config=CONFIG)


def batch(session: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """BERT's inputs: ordinary ids, of which the last row's last token is padding."""
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    mask = np.ones_like(ids)
    mask[-1, -1] = 0
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {item.name: known[item.name] for item in session.get_inputs()}


def write(run: Path, folder: Path) -> tuple[Path, Path]:
    """The model rounded to int8, in parts and with attention fused."""
    from exporter.attend import attend
    from exporter.integer import DYNAMIC_KINDS, int8_dynamic
    from exporter.layers import find_layers
    from exporter.save import load_graph, save_graph
    from exporter.tie import untie

    graph = untie(load_graph(RunFolder(run).variant(Precision.FP32) / "model.onnx"))
    int8_dynamic(graph, [layer.name for layer in find_layers(graph) if layer.kind in DYNAMIC_KINDS])
    parts, fused = folder / "parts.onnx", folder / "fused.onnx"
    save_graph(graph, parts)
    if not attend(graph):
        sys.exit(f"no attention of {run} is as PyTorch's is traced")
    save_graph(graph, fused)
    return parts, fused


def compare(paths: Sequence[Path], threads: int) -> None:
    """Print milliseconds and the ratio at each shape."""
    sessions = [opened(path, threads) for path in paths]
    print(f"{threads} threads{'in parts':>14}{'fused':>10}{'ratio':>8}")
    for shape in SHAPES:
        given = batch(sessions[0], shape)
        spent: list[list[float]] = [[], []]
        for _ in range(CALLS):
            for session, samples in zip(sessions, spent, strict=True):
                start = perf_counter()
                session.run(None, given)
                samples.append(perf_counter() - start)
        parts, fused = (median(samples[3:]) for samples in spent)
        ratio = median(one / other for one, other in zip(spent[0][3:], spent[1][3:], strict=True))
        print(f"{f'{shape[0]}×{shape[1]}':<9}{parts * 1e3:11.2f} ms{fused * 1e3:7.2f} ms{ratio:7.2f}×", flush=True)


def weigh(path: Path, shape: tuple[int, int], threads: int) -> None:
    """Print the bytes that this process holds after it computed, more than before."""
    session = opened(path, threads)
    given, before = batch(session, shape), read_memory().rss_bytes
    for _ in range(CALLS_OF_MEMORY):
        session.run(None, given)
    print(read_memory().rss_bytes - before)


def main() -> None:
    """Print times, then memory at the longest shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of a BERT, such as the demo's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weigh", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    longest = max(SHAPES, key=lambda shape: shape[1])
    if options.weigh:
        weigh(options.weigh, longest, options.threads)
        return
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        paths = write(options.run, Path(folder))
        compare(paths, options.threads)
        program = [sys.executable, "-m", "benchmarks.attention", str(options.run), "--threads", str(options.threads)]
        grown = [int(finished([*program, "--weigh", str(path)]).printed) / 1e6 for path in paths]
        print(f"{longest[0]}×{longest[1]}: {grown[0]:.0f} MB to compute in parts, {grown[1]:.0f} MB fused")


if __name__ == "__main__":
    main()
