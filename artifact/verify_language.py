"""Prove a language model's artifact on this machine: hashes, golden texts, then its speed beside the card's."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from artifact.bundle import bundle
from artifact.generate.decoder import reads
from artifact.generate.encoder import NOTHING, Given
from artifact.generate.generator import Generator
from artifact.generate.golden import GoldenTexts, read_golden_texts
from artifact.generate.manifest import read_language_manifest
from artifact.pack_language import ENTRY
from artifact.predict.cores import usable_cores
from artifact.verify import MOST_FIGURES, Confirmed, Here, SpeedHere, Verified, confirmed, own_memory
from errors import GateFailed

STEPS = 24
MOST_READ = 4096


def verify_language(folder: Path, cpu_model: str, cpu_features: Sequence[str] = ()) -> Verified:
    """Check an artifact on this machine, whose CPU is `cpu_model` and has `cpu_features`. No code of it is run.

    Raises `GateFailed` when a check does not confirm.
    """
    before = own_memory()
    manifest = read_language_manifest(folder)
    card = manifest.card
    generator = Generator.open(folder, threads=min(card.threads, usable_cores()) if card else None)
    if problems := generator.selftest():
        raise GateFailed("; ".join(problems))
    golden = read_golden_texts(folder)
    speed = tuple(
        SpeedHere(workload=figure.workload, here_s=here_s, card_s=figure.median_s)
        for figure in (card.figures[:MOST_FIGURES] if card else ())
        if (here_s := _seconds(generator, golden, figure.workload)) is not None
    )
    return confirmed(
        folder,
        Confirmed(len(manifest.files), len(golden.examples), generator.threads, manifest.precision),
        card,
        speed,
        own_memory() - before,
        Here(cpu_model, tuple(cpu_features)),
        bundle(ENTRY),
    )


def _seconds(generator: Generator, golden: GoldenTexts, workload: str) -> float | None:
    """Seconds of a workload such as `read 1×128`, or `write 1×30s` of recordings; `None` for one of another kind."""
    kind, _, shape = workload.partition(" ")
    rows, _, length = shape.partition("×")
    if generator.manifest.sound is not None:  # however long, recordings are filled up
        length = length.removesuffix("s")
    if kind not in ("read", "write") or not (rows.isdecimal() and length.isdecimal()) or len(workload) > 20:
        return None
    size = int(rows), int(length)
    if not 0 < size[0] * size[1] <= MOST_READ or size[1] + STEPS > generator.manifest.context_tokens:
        return None
    prompt, read = _begun(generator, golden, *size)
    reading, writing = [], []
    for _ in range(3):
        start = perf_counter()
        decoding = generator.decoder.begin(size[0], len(prompt[0]) + STEPS, read)
        logits = decoding.prompt(prompt)
        reading.append(perf_counter() - start)
        for _ in range(STEPS if kind == "write" else 0):
            tokens = logits.argmax(axis=-1)
            start = perf_counter()
            logits = decoding.step(tokens)
            writing.append(perf_counter() - start)
    return median(writing if kind == "write" else reading)


def _begun(generator: Generator, golden: GoldenTexts, rows: int, length: int) -> tuple[list[Sequence[int]], Given]:
    """What rows begin with, and what an encoder reads before that: golden texts one after another, or recordings."""
    rewriting = generator.manifest.rewriting
    if rewriting is not None and rewriting.sound is not None:
        heard = generator.read(golden.examples[0].item)
        return [rewriting.start_ids] * rows, reads([heard] * rows)
    ids = np.resize(np.concatenate([example.ids for example in golden.examples]), (rows, length)).tolist()
    return (ids, NOTHING) if rewriting is None else ([rewriting.start_ids[:1]] * rows, reads(ids))
