r"""Tokens a second of a language model: reading a prompt, and writing one token after another; peers beside ours.

Run by hand, alone on the machine (minutes), on a run that `steelyard export` made of a decoder:

    .venv/bin/python -m benchmarks.generation runs/smollm2 --rounds 4
    .venv/bin/python -m benchmarks.generation runs/smollm2 --gguf SmolLM2-135M-Instruct.Q4_1.gguf \
        --artifact runs/smollm2/artifact

Each engine runs in fresh processes, in turns. Reading is the time from an empty cache to the logits of the first new
token; a step is the median of those that follow. Ratios are of medians paired by round. Tokenising is in none of it;
sampling only in onnxruntime-genai's steps, which do not come without (an argmax: some hundredths of a millisecond).

With `--gguf`, llama.cpp runs that file; with `--artifact`, onnxruntime-genai runs that folder, and with `--genai` one
that its own model builder made. Each is installed into an environment of its own, which is kept (`--environments`).
"""

import argparse
import json
import random
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from artifact.predict.cores import usable_cores
from benchmarks.processes import ratio

WARM, WARM_STEPS = 2, 8
"""Passes before the one that counts, and their steps."""

Timed = Callable[[], tuple[float, list[float]]]
"""One process; the seconds of reading, and of each step."""

Pass = Callable[[list[int], int], tuple[float, list[float]]]
"""Reads a prompt and writes so many tokens; the seconds of reading, and of each step."""


def timed(begin: Callable[[int], Any], prompt: list[int], steps: int) -> tuple[float, list[float]]:
    """One pass of what has `prompt` and `step`, as `runtimes.language.Continuing` says."""
    continuing = begin(len(prompt) + steps)
    started = time.perf_counter()
    logits = continuing.prompt([prompt])
    first, times = time.perf_counter() - started, []
    for _ in range(steps):
        token = logits.argmax(axis=-1)
        started = time.perf_counter()
        logits = continuing.step(token)
        times.append(time.perf_counter() - started)
    return first, times


def ours(run: Path, engine: str) -> Pass:
    """A candidate of `steelyard compare`."""
    from measure.source import find_models
    from runtimes.base import Candidate
    from runtimes.registry import open_language

    candidate = Candidate.parse(engine)
    runtime = open_language(candidate, find_models(run).model(candidate), usable_cores()).__enter__()
    return lambda prompt, steps: timed(lambda capacity: runtime.begin(1, capacity), prompt, steps)


PEERS: Mapping[str, tuple[str, str]] = {
    "llama.cpp": (
        "llama-cpp-python",
        """
import json, sys, time
from llama_cpp import Llama
path, threads, prompt, steps, warm, few = json.loads(sys.argv[1])
positions = len(prompt) + steps + 8
model = Llama(path, n_ctx=positions, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)
def once(steps):
    model.reset()
    started = time.perf_counter()
    model.eval(prompt)
    first, times = time.perf_counter() - started, []
    for _ in range(steps):
        token = model.sample(temp=0.0)
        started = time.perf_counter()
        model.eval([token])
        times.append(time.perf_counter() - started)
    return first, times
""",
    ),
    "onnxruntime-genai": (
        "onnxruntime-genai",
        """
import json, sys, time
import onnxruntime_genai as genai
path, threads, prompt, steps, warm, few = json.loads(sys.argv[1])
config = genai.Config(path)
config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
model = genai.Model(config)
def once(steps):
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(prompt) + steps + 2)
    generator = genai.Generator(model, params)
    started = time.perf_counter()
    generator.append_tokens(prompt)
    first, times = time.perf_counter() - started, []
    generator.generate_next_token()  # from logits that are there
    for _ in range(steps):
        if generator.is_done():
            break
        started = time.perf_counter()
        generator.generate_next_token()
        times.append(time.perf_counter() - started)
    return first, times
""",
    ),
}
"""The package of each peer, and a program that defines `once`."""

ENDING = """
for _ in range(warm):
    once(few)
print(json.dumps(once(steps)))
"""


def peer(name: str, path: Path, environments: Path, prompt: list[int], steps: int) -> tuple[float, list[float]]:
    """One process of another engine in its own environment, made where it is not there."""
    package, program = PEERS[name]
    home = environments / package
    python = home / "bin" / "python"
    if not python.is_file():
        venv.create(home, symlinks=True)
        subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", package], check=True)
    asked = json.dumps([str(path.resolve()), usable_cores(), prompt, steps, WARM, WARM_STEPS])
    done = subprocess.run(
        [str(python), "-I", "-c", program + ENDING, asked], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} does not run {path}: {done.stderr.strip()[-800:]}")
    first, times = json.loads(done.stdout.splitlines()[-1])
    return float(first), list(map(float, times))


def child(run: Path, engine: str, prompt: list[int], steps: int) -> None:
    """One process's seconds, as JSON."""
    one_pass = ours(run, engine)
    for _ in range(WARM):
        one_pass(prompt, WARM_STEPS)
    print(json.dumps(one_pass(prompt, steps)))


def asked_engines(options: argparse.Namespace, prompt: list[int]) -> dict[str, Timed]:
    """What runs each engine once in a process of its own, by its name."""

    def own(engine: str) -> tuple[float, list[float]]:
        command = [sys.executable, "-m", "benchmarks.generation", str(options.run), "--child", engine]
        command += ["--tokens", str(options.tokens), "--steps", str(options.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, times = json.loads(done.stdout.splitlines()[-1])
        return first, times

    found: dict[str, Timed] = {engine: partial(own, engine) for engine in options.engines.split(",")}
    for label, name, path in (
        ("llama.cpp", "llama.cpp", options.gguf),
        ("onnxruntime-genai", "onnxruntime-genai", options.artifact),
        ("onnxruntime-genai, its own model", "onnxruntime-genai", options.genai),
    ):
        if path is not None:
            found[label] = partial(peer, name, path, options.environments, prompt, options.steps)
    return found


def in_turns(engines: Mapping[str, Timed], rounds: int, tokens: int, steps: int) -> None:
    """Run engines in turns, in another order each round, and print medians and ratios to the first."""
    reading: dict[str, list[float]] = {engine: [] for engine in engines}
    writing: dict[str, list[float]] = {engine: [] for engine in engines}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for engine in shuffle.sample(list(engines), len(engines)):
            first, times = engines[engine]()
            reading[engine].append(first)
            writing[engine].append(median(times))
            time.sleep(1)
    base = next(iter(engines))
    print(f"{tokens} tokens read, {steps} steps, {usable_cores()} threads, {rounds} rounds")
    for engine in engines:
        cells = (
            f"{label} {count / median(found[engine]):7.1f} tokens/s, {ratio(found[engine], found[base])}"
            for label, found, count in (("read", reading, tokens), ("write", writing, 1))
        )
        print(f"{engine:32} {'; '.join(cells)}")


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
    parser.add_argument("--gguf", type=Path, help="what llama.cpp runs")
    parser.add_argument("--artifact", type=Path, help="what onnxruntime-genai runs")
    parser.add_argument("--genai", type=Path, help="a folder that onnxruntime-genai's own builder made")
    parser.add_argument("--environments", type=Path, default=Path("runs/peers"))
    parser.add_argument("--child")
    options = parser.parse_args()
    prompt = np.random.default_rng(0).integers(100, 1_000, options.tokens).tolist()
    if options.child:
        child(options.run, options.child, prompt, options.steps)
        return
    engines = asked_engines(options, prompt)
    in_turns(engines, options.rounds, options.tokens, options.steps)


if __name__ == "__main__":
    main()
