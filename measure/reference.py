"""`reference.npz`: the reference's answers to the evaluation texts, computed once and kept."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from artifact.records import replacing


class _Header(msgspec.Struct, frozen=True):
    schema_version: int
    candidate: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What the candidate answered, float32: logits (examples, labels), or of a language model, of each token that
    comes, its first choice and its surprise (tokens, 2)."""

    candidate: str
    answers: NDArray[np.float32]


def save_reference(path: Path, reference: Reference, fingerprint: str) -> None:
    """Write the answers with what they depend on."""
    header = msgspec.json.encode(_Header(1, reference.candidate, fingerprint))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, header=np.frombuffer(header, dtype=np.uint8), answers=reference.answers)


def load_reference(path: Path, fingerprint: str) -> Reference | None:
    """The kept answers, or `None` when there are none for these texts."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            header = msgspec.json.decode(arrays["header"].tobytes(), type=_Header)
            answers = np.asarray(arrays["answers"], dtype=np.float32)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, msgspec.DecodeError):
        return None
    return Reference(header.candidate, answers) if header.fingerprint == fingerprint else None
