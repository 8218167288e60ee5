"""Recordings of our own, and what they become here and in transformers."""

import io
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predict.golden import INPUT_TOLERANCE
from artifact.predict.sounds import SoundSettings, prepare_recording, read_recording

SECONDS = (1.0, 1.25)
"""Of our own recordings."""


def tones(rate_hz: int) -> tuple[bytes, ...]:
    """WAV files of two tones and a little noise each, 16 bits."""
    return tuple(_tone(seconds_s, rate_hz, number) for number, seconds_s in enumerate(SECONDS))


def _tone(seconds_s: float, rate_hz: int, seed: int) -> bytes:
    time_s = np.arange(int(seconds_s * rate_hz)) / rate_hz
    samples = 0.4 * np.sin(2 * np.pi * 220 * (1 + seed) * time_s) + 0.2 * np.sin(2 * np.pi * 1333 * time_s)
    samples += 0.02 * np.random.default_rng(seed).standard_normal(len(time_s))
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((samples * 32_000).astype("<i2").tobytes())
    return data.getvalue()


@dataclass(frozen=True, slots=True)
class Compared:
    """A recording, the inputs that it becomes here, and those that transformers makes of it."""

    data: bytes
    mine: NDArray[np.float32]
    theirs: NDArray[np.float32]

    @property
    def agrees(self) -> bool:
        """Whether they are the same, as far as an artifact's self-test demands."""
        return self.mine.shape == self.theirs.shape and bool(np.abs(self.mine - self.theirs).max() <= INPUT_TOLERANCE)


def compared(extractor: Any, settings: SoundSettings) -> tuple[Compared, ...]:
    """Our own recordings, prepared twice. Raises what transformers raises."""
    found = []
    for data in tones(settings.rate_hz):
        samples = read_recording(data, settings)
        given = extractor(samples, sampling_rate=settings.rate_hz, return_tensors="np")
        theirs = np.asarray(given[settings.input_name][0], dtype=np.float32)
        found.append(Compared(data, prepare_recording(samples, settings), theirs))
    return tuple(found)
