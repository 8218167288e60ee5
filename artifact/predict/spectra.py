"""Samples to logarithms of mel bands, each as the models that take them were trained with."""

from math import log

import numpy as np
from numpy.typing import NDArray

from errors import UserError

FRAME, HOP = 400, 160
"""Samples of a frame, and from one to the next: 25 ms every 10 ms at 16,000 samples a second."""

KALDI_FFT, PREEMPHASIS = 512, 0.97
MEL_FLOOR = 1.192092955078125e-07
"""Kaldi's smallest energy: the spacing of float32 at 1."""

HIGHEST_HZ = 8000.0
LINEAR_HZ, LINEAR_MELS, LOG_STEP = 1000.0, 15.0, log(6.4) / 27
"""Slaney's mels: a straight line up to 1,000 Hz, and from there on 27 of them up to 6.4 times the frequency."""
SLANEY_FLOOR, RANGE = 1e-10, 8.0
"""The smallest energy, and how many powers of ten below the loudest one all is as good as silent."""

Samples = NDArray[np.float32]


def kaldi_mel(samples: Samples, rate_hz: int, bins: int, most_frames: int) -> NDArray[np.float32]:
    """Kaldi's filter bank, float32 (most_frames, bins), cut or filled up with zeros: each frame less its mean,
    emphasised, under a Hann window; powers in triangles on the mel scale 1127 ln(1 + f / 700), from 20 Hz to half the
    rate. Raises `UserError` for less than one frame."""
    if len(samples) < FRAME:
        raise UserError(f"a recording has {len(samples)} samples, and the model takes {FRAME} at least")
    count = min(1 + (len(samples) - FRAME) // HOP, most_frames)
    frames = _framed(samples)[:count]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate((frames[:, :1], frames[:, :-1]), axis=1)
    powers = np.abs(np.fft.rfft((frames - PREEMPHASIS * before) * np.hanning(FRAME), KALDI_FFT)) ** 2
    edges = np.linspace(_kaldi_mels(20.0), _kaldi_mels(rate_hz // 2), bins + 2)
    places = np.array([_kaldi_mels(rate_hz / KALDI_FFT * line) for line in range(KALDI_FFT // 2 + 1)])
    logs = np.log(np.maximum(MEL_FLOOR, powers @ _triangles(edges, places))).astype(np.float32)
    return np.pad(logs, ((0, most_frames - count), (0, 0)))


def slaney_mel(samples: Samples, rate_hz: int, bins: int, frames: int) -> NDArray[np.float32]:
    """Whisper's features (Radford et al., 2022), float32 (bins, frames): at most `frames` · `HOP` samples, filled up
    with silence; frames around every `HOP`-th of them under a periodic Hann window; powers in triangles of equal area
    on Slaney's mel scale, up to 8,000 Hz; their log10, not lower than `RANGE` below the highest, plus 4, by 4."""
    filled = np.pad(np.pad(samples, (0, frames * HOP - len(samples))), FRAME // 2, mode="reflect")
    window = np.hanning(FRAME + 1)[:-1]
    powers = np.abs(np.fft.rfft(_framed(filled)[:frames] * window)) ** 2
    edges = np.array([_slaney_hertz(mels) for mels in np.linspace(0.0, _slaney_mels(HIGHEST_HZ), bins + 2)])
    places = np.linspace(0.0, rate_hz / 2, FRAME // 2 + 1)
    bands = powers @ (_triangles(edges, places) * (2.0 / (edges[2:] - edges[:-2])))
    logs = np.log10(np.maximum(SLANEY_FLOOR, bands))
    return np.ascontiguousarray((np.maximum(logs, logs.max() - RANGE) + 4.0).T / 4.0, dtype=np.float32)


def _framed(samples: Samples) -> NDArray[np.float64]:
    """A frame from every `HOP`-th sample on: (frames, `FRAME`)."""
    return np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), FRAME)[::HOP]


def _triangles(edges: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each band, from an edge over the next to the one after it, has of what lies at each place: (places,
    bands)."""
    widths = np.diff(edges)
    slopes = edges[None, :] - places[:, None]
    return np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))


def _kaldi_mels(hertz: float) -> float:
    return 1127.0 * log(1.0 + hertz / 700.0)


def _slaney_mels(hertz: float) -> float:
    if hertz < LINEAR_HZ:
        return LINEAR_MELS * hertz / LINEAR_HZ
    return LINEAR_MELS + log(hertz / LINEAR_HZ) / LOG_STEP


def _slaney_hertz(mels: float) -> float:
    if mels < LINEAR_MELS:
        return LINEAR_HZ * mels / LINEAR_MELS
    return LINEAR_HZ * float(np.exp(LOG_STEP * (mels - LINEAR_MELS)))
