"""Tokens a second of a language model: reading a prompt, and writing one token after another.

Run by hand, alone on the machine (minutes), on a run that `steelyard export` made of a decoder:

    .venv/bin/python -m benchmarks.generation runs/smollm2 --rounds 3

Each engine runs in fresh processes, in turns. Reading is the time to the first token's logits; a step is the median of
those that follow. Ratios are paired by round. Sampling and tokenising are not in it.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from artifact.predict.cores import usable_cores
from artifact.run_folder import RunFolder

WARM = 2
"""Whole passes before those that count."""


def ours(run: RunFolder, precision: str, threads: int) -> Callable[[list[int], int], tuple[float, list[float]]]:
    """A variant of the run on ONNX Runtime's CPU provider."""
    from artifact.generate.decoder import Decoder
    from artifact.predict.session import SessionConfig, open_session

    path = run.directory / "variants" / precision / "model.onnx"
    session = open_session(path, provider="CPUExecutionProvider", threads=threads, config=SessionConfig())
    decoder = Decoder(session, 8192)

    def measure(prompt: list[int], steps: int) -> tuple[float, list[float]]:
        decoding = decoder.begin(1, len(prompt) + steps)
        started = time.perf_counter()
        logits = decoding.prompt([prompt])
        first, times = time.perf_counter() - started, []
        for _ in range(steps):
            token = logits.argmax(axis=-1)
            started = time.perf_counter()
            logits = decoding.step(token)
            times.append(time.perf_counter() - started)
        return first, times

    return measure


def torchs(run: RunFolder, precision: str, threads: int) -> Callable[[list[int], int], tuple[float, list[float]]]:
    """The checkpoint in eager PyTorch with its own growing cache."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model: Any = AutoModelForCausalLM.from_pretrained(run.checkpoint, dtype=kind).eval()

    def measure(prompt: list[int], steps: int) -> tuple[float, list[float]]:
        with torch.inference_mode():
            started = time.perf_counter()
            found = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
            first, times = time.perf_counter() - started, []
            for _ in range(steps):
                token = found.logits[:, -1:].argmax(dim=-1)
                started = time.perf_counter()
                found = model(token, past_key_values=found.past_key_values, use_cache=True, logits_to_keep=1)
                times.append(time.perf_counter() - started)
        return first, times

    return measure


COMPARED = ("torch-cpu/fp32", "torch-cpu/bf16", "ort-cpu/fp32", "ort-cpu/int8-dynamic", "ort-cpu/int4")
ENGINES = {"ort-cpu": ours, "torch-cpu": torchs}


def child(run: Path, engine: str, tokens: int, steps: int) -> None:
    """One process's figures, as JSON."""
    name, _, precision = engine.partition("/")
    measure = ENGINES[name](RunFolder(run), precision, usable_cores())
    prompt = np.random.default_rng(0).integers(100, 1_000, tokens).tolist()
    for _ in range(WARM):
        measure(prompt, 8)
    first, times = measure(prompt, steps)
    print(json.dumps({"read": tokens / first, "write": 1 / median(times)}))


def main() -> None:
    """Print a table of medians, and ratios to the first engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--engines", default="torch-cpu/fp32,torch-cpu/bf16,ort-cpu/fp32,ort-cpu/int8-dynamic,ort-cpu/int4"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.run, options.child, options.tokens, options.steps)
        return
    engines = options.engines.split(",")
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    shuffle = random.Random(0)
    for _ in range(options.rounds):
        for engine in shuffle.sample(engines, len(engines)):
            command = [sys.executable, "-m", "benchmarks.generation", str(options.run), "--child", engine]
            command += ["--tokens", str(options.tokens), "--steps", str(options.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[engine].append(json.loads(done.stdout.splitlines()[-1]))
            time.sleep(1)
    base = found[engines[0]]
    print(
        f"prompt of {options.tokens} tokens, {options.steps} steps, {usable_cores()} threads, {options.rounds} rounds"
    )
    for engine, rounds in found.items():
        cells = []
        for what in ("read", "write"):
            ratios = [mine[what] / theirs[what] for mine, theirs in zip(rounds, base, strict=True)]
            cells.append(
                f"{what} {median(item[what] for item in rounds):7.1f} tokens/s, "
                f"{median(ratios):5.2f}× [{min(ratios):.2f}–{max(ratios):.2f}]"
            )
        print(f"{engine:22} {'; '.join(cells)}")


if __name__ == "__main__":
    main()
