"""What transformers makes of recordings: its feature extractors' settings, and recordings to try them with."""

import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predict.golden import INPUT_TOLERANCE
from artifact.predict.sounds import SoundSettings, prepare_recording, read_recording
from artifact.predict.spectra import FRAME, HOP

SECONDS = (1.0, 1.25)
"""Of our own recordings."""


def load_extractor(directory: Path) -> Any:
    """A checkpoint's feature extractor. Raises `ValueError` where its settings lack, and what transformers raises."""
    from transformers import AutoFeatureExtractor

    if not any((directory / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError("the checkpoint has no preprocessor_config.json, which says how items are prepared")
    return AutoFeatureExtractor.from_pretrained(directory, local_files_only=True)


def sound_settings(extractor: Any, input_name: str) -> SoundSettings:
    """What a feature extractor of transformers says that it does; `ValueError` for one that is not known."""
    kind = type(extractor).__name__
    if kind == "WhisperFeatureExtractor":
        return _slaney(extractor, input_name)
    if kind not in ("Wav2Vec2FeatureExtractor", "ASTFeatureExtractor"):
        raise ValueError("it is none of Wav2Vec2's, AST's and Whisper's")
    common: dict[str, Any] = {"rate_hz": int(extractor.sampling_rate), "normalize": bool(extractor.do_normalize)}
    if kind == "Wav2Vec2FeatureExtractor":
        return SoundSettings(features="waveform", input_name=input_name, **common)
    return SoundSettings(
        features="mel",
        input_name=input_name,
        bins=int(extractor.num_mel_bins),
        frames=int(extractor.max_length),
        mean=float(extractor.mean),
        std=float(extractor.std),
        **common,
    )


def _slaney(extractor: Any, input_name: str) -> SoundSettings:
    if (extractor.n_fft, extractor.hop_length) != (FRAME, HOP) or extractor.dither or extractor.padding_value:
        raise ValueError(f"frames are not of {FRAME} samples, {HOP} apart, without noise and behind them silence")
    return SoundSettings(
        features="slaney-mel",
        rate_hz=int(extractor.sampling_rate),
        normalize=False,
        input_name=input_name,
        bins=int(extractor.feature_size),
        frames=int(extractor.nb_max_frames),
    )


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
