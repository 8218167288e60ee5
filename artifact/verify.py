"""Prove an artifact on this machine: hashes, golden examples, then its speed beside the card's."""

from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec
import numpy as np

from artifact.golden import Golden
from artifact.manifest import Manifest
from artifact.predict import MANIFEST, ArtifactError, Predictor, usable_cores
from artifact.records import read_if_present, read_json
from errors import GateFailed, UserError

SPEED_RUNS = 15
SPEED_WARM_UP = 5


class SpeedHere(msgspec.Struct, frozen=True, kw_only=True):
    """Median seconds of one workload on this machine and on the card's; machines differ, so this is no gate."""

    workload: str
    here_s: float
    card_s: float


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was confirmed. `threads` are the card's, as far as this process may use so many. `same_cpu` says whether the
    card was measured on this CPU model; `None` without a card."""

    directory: str
    files: int
    examples: int
    threads: int
    card_threads: int | None
    same_cpu: bool | None
    speed: tuple[SpeedHere, ...]


def verify(folder: Path, cpu_model: str) -> Verified:
    """Check an artifact on this machine, whose CPU is `cpu_model`.

    Raises `UserError` when the folder is no artifact and `GateFailed` when a check does not confirm.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{folder} is not an artifact: it has no {MANIFEST}", "make one with: steelyard pack RUN --out FOLDER"
        )
    try:
        described = read_if_present(folder / MANIFEST, Manifest)
        threads = min(described.card.threads, usable_cores()) if described and described.card else None
        predictor = Predictor.open(folder, threads=threads)
        manifest = read_json(folder / MANIFEST, Manifest)
        problems = predictor.selftest()
    except ArtifactError as error:
        raise GateFailed(str(error)) from error
    if problems:
        raise GateFailed("; ".join(problems))
    golden = read_json(folder / "golden.json", Golden)
    card = manifest.card
    return Verified(
        directory=str(folder),
        files=len(manifest.sha256),
        examples=len(golden.examples),
        threads=predictor.threads,
        card_threads=card.threads if card else None,
        same_cpu=None if card is None else card.cpu_model == cpu_model,
        speed=tuple(
            SpeedHere(workload=figure.workload, here_s=_seconds(predictor, golden, shape), card_s=figure.median_s)
            for figure in (card.figures if card else ())
            if (shape := _fixed_shape(figure.workload)) is not None
        ),
    )


def _fixed_shape(workload: str) -> tuple[int, int] | None:
    rows, _, length = workload.partition("×")
    return (int(rows), int(length)) if rows.isdigit() and length.isdigit() else None


def _seconds(predictor: Predictor, golden: Golden, shape: tuple[int, int]) -> float:
    """Median seconds of a batch of this shape, filled with the ids of the golden examples."""
    ids = np.resize(np.concatenate([example.input_ids for example in golden.examples]), shape).astype(np.int64)
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    batch = {name: known[name] for name in predictor.input_names}
    samples = []
    for _ in range(SPEED_WARM_UP + SPEED_RUNS):
        start = perf_counter()
        predictor.run(batch)
        samples.append(perf_counter() - start)
    return median(samples[SPEED_WARM_UP:])
