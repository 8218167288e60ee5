"""Features of recordings without transformers, beside transformers' own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor

from artifact.predict.sounds import prepare_recording, read_recording
from errors import UserError
from models.recordings import sound_settings
from tests.conftest import wav

Samples = NDArray[np.float32]
RATE = 16_000


def noise(seconds_s: float, loudness: float = 0.1) -> Samples:
    random = np.random.default_rng(1)
    return (loudness * random.standard_normal(int(seconds_s * RATE))).astype(np.float32)


def tone(seconds_s: float) -> Samples:
    time_s = np.arange(int(seconds_s * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * 220 * time_s) + 0.2 * np.sin(2 * np.pi * 5000 * time_s)).astype(np.float32)


RECORDINGS: dict[str, Callable[[], Samples]] = {
    "silence": lambda: np.zeros(RATE, dtype=np.float32),
    "one sample": lambda: np.ones(1, dtype=np.float32),
    "less than a frame": lambda: noise(0.01),
    "noise": lambda: noise(3),
    "tones in noise": lambda: tone(5) + noise(5, 0.02),
    "too loud": lambda: np.sign(tone(7)),
    "a click": lambda: np.eye(1, RATE, RATE // 2, dtype=np.float32)[0],
    "all that is heard": lambda: noise(30, 0.01),
}


@pytest.mark.parametrize("bins", [80, 128])
def test_whispers_features_are_those_of_transformers(bins: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=bins)
    settings = sound_settings(extractor, "input_features")
    assert settings.longest_s == 30
    for name, make in RECORDINGS.items():
        samples = make()
        expected = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
        found = prepare_recording(read_recording(samples, settings), settings)
        assert found.shape == (bins, 3000)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-4, name


def test_what_is_not_heard_is_said() -> None:
    settings = sound_settings(WhisperFeatureExtractor(), "input_features")
    with pytest.raises(UserError, match=r"lasts 30\.1 s, and the model hears 30 s at once"):
        read_recording(wav(noise(30.1)), settings)
    with pytest.raises(UserError, match="44,100 samples a second"):
        read_recording(wav(noise(1), rate=44_100), settings)
    with pytest.raises(UserError, match="ends after 8,000 of the 16,000 samples that it promises"):
        read_recording(wav(noise(1))[:-16_000], settings)
    with pytest.raises(UserError, match="is empty"):
        read_recording(np.zeros(0, dtype=np.float32), settings)
    with pytest.raises(ValueError, match="frames are not of 400 samples"):
        sound_settings(WhisperFeatureExtractor(hop_length=200), "input_features")
    with pytest.raises(ValueError, match="mel features need bins"):
        replace(settings, bins=0)
