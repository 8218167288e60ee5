"""Recordings to the inputs of audio models, as transformers' feature extractors prepare them."""

import io
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from artifact.predict.spectra import HOP, Samples, kaldi_mel, slaney_mel
from errors import UserError

MOST_SAMPLES = 100_000_000

SoundItem = str | Path | bytes | Samples
"""A file's path, a file's bytes, or samples from -1 to 1 at the model's own rate."""


@dataclass(frozen=True, kw_only=True)
class SoundSettings:
    """How a recording becomes inputs.

    `waveform` gives the samples themselves, with mean 0 and variance 1 if `normalize`. `mel` gives the logarithms of
    `bins` mel bands in frames of 25 ms every 10 ms, cut or filled to `frames`, less `mean` and by twice `std`.
    `slaney-mel` gives those of Slaney's mels, on a scale of its own, of a recording that is filled to `frames` and may
    not be longer.
    """

    features: Literal["waveform", "mel", "slaney-mel"]
    rate_hz: int
    normalize: bool
    input_name: str = "input_values"
    bins: int = 0
    frames: int = 0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 1_000 <= self.rate_hz <= 400_000:
            raise ValueError(f"a recording has not {self.rate_hz} samples a second")
        if self.features != "waveform" and not (1 <= self.bins <= 1_024 and 1 <= self.frames <= 100_000 and self.std):
            raise ValueError("mel features need bins, frames and a std")

    @property
    def most_samples(self) -> int:
        """Of the longest recording that is read."""
        return self.frames * HOP if self.features == "slaney-mel" else MOST_SAMPLES

    @property
    def longest_s(self) -> float:
        """Seconds of that."""
        return self.most_samples / self.rate_hz


def read_recording(item: SoundItem, settings: SoundSettings) -> NDArray[np.float32]:
    """Samples from -1 to 1, the mean of all channels.

    WAV files of whole numbers are read by Python itself, others by soundfile where it is installed. Raises `UserError`
    for what is no recording, has another rate than the model takes, or lasts longer than it hears.
    """
    if isinstance(item, np.ndarray):
        return _bounded(item.astype(np.float32).reshape(-1), "a recording", settings)
    name = f"a recording of {len(item):,} bytes" if isinstance(item, bytes) else str(item)
    try:
        samples, rate_hz = _read_wav(item, name)
    except (wave.Error, EOFError) as error:
        samples, rate_hz = _read_other(item, name, error)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from None
    if rate_hz != settings.rate_hz:
        raise UserError(
            f"{name} has {rate_hz:,} samples a second, the model takes {settings.rate_hz:,}",
            f"convert it, such as with: ffmpeg -i IN -ar {settings.rate_hz} OUT.wav",
        )
    return _bounded(samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0], name, settings)


def _bounded(samples: Samples, name: str, settings: SoundSettings) -> Samples:
    if not samples.size:
        raise UserError(f"{name} is empty")
    if len(samples) > settings.most_samples:
        seconds_s = len(samples) / settings.rate_hz
        raise UserError(
            f"{name} lasts {seconds_s:.1f} s, and the model hears {settings.longest_s:g} s at once",
            "cut it into parts, best where nobody speaks",
        )
    return samples


def _read_wav(item: str | Path | bytes, name: str) -> tuple[NDArray[np.float32], int]:
    with wave.open(io.BytesIO(item) if isinstance(item, bytes) else str(item), "rb") as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        if file.getnframes() * channels > MOST_SAMPLES or width not in (1, 2, 3, 4):
            raise wave.Error(f"{file.getnframes():,} frames of {width} bytes")
        data = file.readframes(file.getnframes())
        if len(data) < file.getnframes() * width * channels:
            raise UserError(
                f"{name} ends after {len(data) // (width * channels):,} of the {file.getnframes():,} samples that it "
                "promises",
                "copy or save it again",
            )
        samples = _WIDTHS[width](data)
        return samples.reshape(-1, channels), file.getframerate()


def _from_24_bits(data: bytes) -> NDArray[np.float32]:
    parts = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
    whole = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
    return np.asarray((whole - ((whole & 0x800000) << 1)) / 2**23, dtype=np.float32)


_WIDTHS: Mapping[int, Callable[[bytes], NDArray[np.float32]]] = {
    1: lambda data: np.asarray((np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128, dtype=np.float32),
    2: lambda data: np.asarray(np.frombuffer(data, "<i2") / 2**15, dtype=np.float32),
    3: _from_24_bits,
    4: lambda data: np.asarray(np.frombuffer(data, "<i4") / 2**31, dtype=np.float32),
}


def _read_other(item: str | Path | bytes, name: str, error: Exception) -> tuple[NDArray[np.float32], int]:
    try:
        import soundfile
    except (ImportError, OSError):
        raise UserError(
            f"{name} is not a WAV file of whole numbers ({error or 'it ends too early'})",
            "convert it, or pip install soundfile",
        ) from None
    try:
        with soundfile.SoundFile(io.BytesIO(item) if isinstance(item, bytes) else item) as file:
            if file.frames * file.channels > MOST_SAMPLES:
                raise UserError(f"{name} has {file.frames:,} samples", "cut it first")
            return file.read(dtype="float32", always_2d=True), int(file.samplerate)
    except RuntimeError as failure:
        raise UserError(f"{name} is not a recording that soundfile reads: {failure}", "convert it to WAV") from None


def prepare_recording(samples: Samples, settings: SoundSettings) -> NDArray[np.float32]:
    """Samples that `read_recording` gave to inputs: float32 (samples,), (frames, bins), or of `slaney-mel` (bins,
    frames). Raises `UserError` for less than one frame of `mel`."""
    return _FEATURES[settings.features](samples, settings)


def _waveform(samples: Samples, settings: SoundSettings) -> NDArray[np.float32]:
    if not settings.normalize:
        return samples
    return np.asarray((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7), dtype=np.float32)


def _mel(samples: Samples, settings: SoundSettings) -> NDArray[np.float32]:
    features = kaldi_mel(samples, settings.rate_hz, settings.bins, settings.frames)
    if settings.normalize:
        features = (features - np.float32(settings.mean)) / np.float32(2 * settings.std)
    return np.ascontiguousarray(features, dtype=np.float32)


def _slaney(samples: Samples, settings: SoundSettings) -> NDArray[np.float32]:
    return slaney_mel(samples, settings.rate_hz, settings.bins, settings.frames)


_FEATURES: Mapping[str, Callable[[Samples, SoundSettings], NDArray[np.float32]]] = {
    "waveform": _waveform,
    "mel": _mel,
    "slaney-mel": _slaney,
}
