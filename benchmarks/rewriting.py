"""Tokens a second of an encoder-decoder: reading a text up to the first new token, and writing one after another.

Run by hand, alone on the machine (minutes), on a run that `steelyard export` made of a T5, a BART or a Marian:

    .venv/bin/python -m benchmarks.rewriting runs/t5-small --rounds 4

With `--small FOLDER TOKENIZER`, a T5 of T5-small's sizes with random weights is made first, for where none can be had.
Each engine runs in fresh processes, in turns. Reading is the time from a text's ids to the logits of the first new
token; a step is the median of those that follow. Ratios are of medians paired by round.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from artifact.generate.decoder import Decoder, Decoding, reads
from artifact.generate.encoder import Encoder
from artifact.predict.cores import usable_cores
from artifact.predict.session import SessionConfig, open_session
from artifact.run_folder import RunFolder
from benchmarks.generation import WARM, WARM_STEPS, Pass, in_turns, timed

POSITIONS = 512


class Ours:
    """An exported pair of graphs that reads a text when it is prompted, and then goes on."""

    def __init__(self, folder: Path, capacity: int) -> None:
        encoder, decoder = (
            open_session(folder / name, provider="CPUExecutionProvider", threads=usable_cores(), config=SessionConfig())
            for name in ("encoder.onnx", "decoder.onnx")
        )
        self._decoder, self._capacity = Decoder(decoder, POSITIONS, Encoder(encoder)), capacity
        self._decoding: Decoding | None = None

    def prompt(self, rows: list[list[int]]) -> Any:
        self._decoding = self._decoder.begin(1, self._capacity, reads(rows))
        return self._decoding.prompt([[0]])

    def step(self, token: Any) -> Any:
        if self._decoding is None:
            raise RuntimeError("nothing was read")
        return self._decoding.step(token)


class PyTorch:
    """transformers' own cache, eager."""

    def __init__(self, checkpoint: Path) -> None:
        import torch

        from models.checkpoint import load_model

        torch.set_num_threads(usable_cores())
        self._torch, self._model = torch, load_model(checkpoint)
        self._given: dict[str, Any] = {}

    def prompt(self, rows: list[list[int]]) -> Any:
        with self._torch.inference_mode():
            ids = self._torch.tensor(rows)
            states = self._model.get_encoder()(input_ids=ids, attention_mask=self._torch.ones_like(ids))
        self._given = {"encoder_outputs": states, "past_key_values": None}
        return self.step(np.array([0]))

    def step(self, token: Any) -> Any:
        with self._torch.inference_mode():
            ids = self._torch.from_numpy(np.asarray(token))[:, None]
            found = self._model(decoder_input_ids=ids, use_cache=True, **self._given)
        self._given["past_key_values"] = found.past_key_values
        return found.logits[:, -1].numpy()


def opened(run: RunFolder, engine: str, steps: int) -> Pass:
    """What runs one pass of an engine."""
    if engine == "torch-cpu":
        if run.checkpoint is None:
            raise SystemExit(f"{run.directory} has no checkpoint")
        model: Any = PyTorch(run.checkpoint)
    else:
        model = Ours(run.directory / "variants" / engine, steps + 1)
    return lambda prompt, wanted: timed(lambda capacity: model, prompt, wanted)


def make_small(folder: Path, tokenizer: Path) -> None:
    """A T5 of T5-small's sizes with random weights and another model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"eos_token_id": words.sep_token_id, "pad_token_id": 0, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(tie_word_embeddings=True, **ends)).save_pretrained(folder)


def main() -> None:
    """Print a table of medians, and ratios to PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--small", type=Path, nargs=2, metavar=("FOLDER", "TOKENIZER"), help="make a random one")
    parser.add_argument("--engines", default="torch-cpu,fp32,int8-dynamic,int4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--child")
    options = parser.parse_args()
    text = np.random.default_rng(0).integers(5, 90, options.tokens).tolist()
    if options.small:
        make_small(*options.small)
        raise SystemExit(f"export it: steelyard export {options.small[0]} --precisions all --out {options.run}")
    if options.child:
        one_pass = opened(RunFolder(options.run), options.child, options.steps)
        for _ in range(WARM):
            one_pass(text, WARM_STEPS)
        print(json.dumps(one_pass(text, options.steps)))
        return

    def one(engine: str) -> tuple[float, list[float]]:
        command = [sys.executable, "-m", "benchmarks.rewriting", str(options.run), "--child", engine]
        command += ["--tokens", str(options.tokens), "--steps", str(options.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, times = json.loads(done.stdout.splitlines()[-1])
        return first, times

    engines = {engine: partial(one, engine) for engine in options.engines.split(",")}
    in_turns(engines, options.rounds, options.tokens, options.steps)


if __name__ == "__main__":
    main()
