"""Prove an artifact on this machine: hashes, golden examples, then its speed and memory beside the card's."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import msgspec
import numpy as np
import psutil

from artifact.bundle import bundle
from artifact.cpu import VNNI
from artifact.precision import Precision
from artifact.predict.card import Card
from artifact.predict.cores import usable_cores
from artifact.predict.folder import MANIFEST
from artifact.predict.golden import Golden, read_golden
from artifact.predict.manifest import read_manifest
from artifact.predict.predictor import Predictor
from errors import GateFailed, UserError

SPEED_RUNS = 15
SPEED_WARM_UP = 5
MOST_FIGURES = 8
MOST_TOKENS = 2**15
ALIKE = 1.25
"""Speeds within this factor confirm the card: machines of one kind differ by as much."""

QUANTIZED = (Precision.INT8_DYNAMIC, Precision.INT8_STATIC, Precision.INT4)
DECISIVE = {
    "VNNI": (QUANTIZED, VNNI),
    "AVX2": ((Precision.FP32, Precision.FP16, *QUANTIZED), ("avx2", "asimddp", "sve")),
    "AVX-512": ((Precision.FP32,), ("avx512f", "sve")),
}
"""Instructions that a precision is fast by: those that use them, and the flags of which one is enough."""


class SpeedHere(msgspec.Struct, frozen=True, kw_only=True):
    """Median seconds of one workload on this machine and on the card's; machines differ, so this is no gate."""

    workload: str
    here_s: float
    card_s: float


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was confirmed. `threads` are the card's, as far as this process may use so many.

    `same_cpu` says whether the card was measured on this CPU model; `None` without a card. `slowdown` is the geometric
    mean of seconds here over the card's. `memory_bytes` is what the loaded model took here, to compare with the card's.
    `missing` are instructions that the card's machine had and this one lacks, and that decide how fast the precision
    is. `notes` says what follows from all of that. `own_predict_py` is whether the packed program is the one that this
    version of Steelyard writes, so that it need not be read before it is run.
    """

    directory: str
    files: int
    examples: int
    threads: int
    card_threads: int | None
    same_cpu: bool | None
    speed: tuple[SpeedHere, ...]
    slowdown: float | None
    memory_bytes: int | None
    card_memory_bytes: int | None
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    own_predict_py: bool


def verify(folder: Path, cpu_model: str, cpu_features: Sequence[str] = ()) -> Verified:
    """Check an artifact on this machine, whose CPU is `cpu_model` and has `cpu_features`. No code of it is run.

    Raises `UserError` when the folder is no artifact and `GateFailed` when a check does not confirm.
    """
    check_is_artifact(folder)
    before = own_memory()
    manifest = read_manifest(folder)
    card = manifest.card
    predictor = Predictor.open(folder, threads=min(card.threads, usable_cores()) if card else None)
    if problems := predictor.selftest():
        raise GateFailed("; ".join(problems))
    golden = read_golden(folder)
    speed = tuple(
        SpeedHere(workload=figure.workload, here_s=_seconds(predictor, golden, shape), card_s=figure.median_s)
        for figure in (card.figures[:MOST_FIGURES] if card else ())
        if manifest.limits is not None
        and (shape := _fixed_shape(figure.workload)) is not None
        and shape[1] <= manifest.limits.max_length_tokens
    )
    return confirmed(
        folder,
        Confirmed(len(manifest.files), len(golden.examples), predictor.threads, manifest.precision),
        card,
        speed,
        own_memory() - before,
        Here(cpu_model, tuple(cpu_features)),
        bundle(),
    )


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Files that are unchanged, golden examples that agree, and how the model was run."""

    files: int
    examples: int
    threads: int
    precision: Precision


@dataclass(frozen=True, slots=True)
class Here:
    """This machine's CPU and its features."""

    cpu_model: str
    cpu_features: tuple[str, ...]


def confirmed(
    folder: Path,
    found: Confirmed,
    card: Card | None,
    speed: tuple[SpeedHere, ...],
    memory_bytes: int,
    here: Here,
    program: str,
) -> Verified:
    """What is said of an artifact whose files and examples are right, whose program should be `program`."""
    slowdown = exp(fmean(log(item.here_s / item.card_s) for item in speed)) if speed else None
    missing = _missing(found.precision, card, here.cpu_features)
    return Verified(
        directory=str(folder),
        files=found.files,
        examples=found.examples,
        threads=found.threads,
        card_threads=card.threads if card else None,
        same_cpu=None if card is None else card.cpu_model == here.cpu_model,
        speed=speed,
        slowdown=slowdown,
        memory_bytes=memory_bytes,
        card_memory_bytes=card.memory_bytes if card else None,
        missing=missing,
        notes=_notes(card, slowdown, missing, found.threads, here.cpu_model) if card else (),
        own_predict_py=_is_own(folder / "predict.py", program),
    )


def check_is_artifact(folder: Path) -> None:
    """Raise `UserError` for a file, and for a folder without a manifest."""
    if folder.is_file():
        raise UserError(f"{folder} is a file", "unpack an archive first, and give the folder")
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{folder} is not an artifact: it has no {MANIFEST}", "make one with: steelyard pack RUN --out FOLDER"
        )


def _is_own(program: Path, source: str) -> bool:
    """Whether a packed program is the one that this version writes."""
    ours = source.encode()
    return program.is_file() and program.stat().st_size == len(ours) and program.read_bytes() == ours


def _missing(precision: Precision, card: Card | None, features: Sequence[str]) -> tuple[str, ...]:
    """Instructions that the precision is fast by, that the card's machine had, and this one has not."""
    if card is None or not features:
        return ()
    return tuple(
        name
        for name, (precisions, flags) in DECISIVE.items()
        if precision in precisions and set(flags) & set(card.cpu_features) and not set(flags) & set(features)
    )


def _notes(card: Card, slowdown: float | None, missing: Sequence[str], threads: int, cpu_model: str) -> tuple[str, ...]:
    """Sentences on how this machine differs from the card's, and what follows."""
    notes = []
    reasons = [f"no {name}" for name in missing]
    if threads != card.threads:
        reasons.append(f"{threads} threads, not {card.threads}")
    if card.cpu_model != cpu_model:
        reasons.append("another CPU model")
    if slowdown is not None and slowdown > ALIKE:
        why = ", ".join(reasons) or "the same CPU model and threads, so perhaps it is busy or throttled now"
        notes.append(f"{slowdown:.1f}× slower than its card: {why}")
    elif slowdown is not None and slowdown < 1 / ALIKE:
        notes.append(f"{1 / slowdown:.1f}× faster than its card" + (f" ({', '.join(reasons)})" if reasons else ""))
    elif slowdown is not None:
        notes.append("confirms its card")
    if missing:
        others = [rival for rival in card.rivals if rival.precision not in QUANTIZED]
        best = max(others, key=lambda rival: rival.ratio, default=None)
        notes.append(
            f"it was chosen on a CPU with {' and '.join(missing)}, which this one lacks: "
            + (
                f"compare here, or pack {best.candidate}, which was {best.ratio:.2f}× as fast as {card.baseline} there"
                if best
                else "compare the run on this machine before it is deployed"
            )
        )
    return tuple(notes)


def own_memory() -> int:
    """Bytes of this process's resident set, libraries in full whoever else maps them."""
    return int(psutil.Process().memory_info().rss)


def _fixed_shape(workload: str) -> tuple[int, int] | None:
    rows, _, length = workload.partition("×")
    if not (rows.isdecimal() and length.isdecimal()) or len(workload) > 12:
        return None
    shape = int(rows), int(length)
    return shape if 0 < shape[0] * shape[1] <= MOST_TOKENS else None


def _seconds(predictor: Predictor, golden: Golden, shape: tuple[int, int]) -> float:
    """Median seconds of a batch of this shape, filled with the ids of the golden examples."""
    ids = np.concatenate([example.inputs["input_ids"].values for example in golden.examples])
    filled = np.resize(ids, shape).astype(np.int64)
    known = {"input_ids": filled, "attention_mask": np.ones_like(filled), "token_type_ids": np.zeros_like(filled)}
    batch = {name: known[name] for name in predictor.input_names}
    samples = []
    for _ in range(SPEED_WARM_UP + SPEED_RUNS):
        start = perf_counter()
        predictor.run(batch)
        samples.append(perf_counter() - start)
    return median(samples[SPEED_WARM_UP:])
