"""How a checkpoint prepares recordings: the settings of its feature extractor, and what is said in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.generate.encoder import FEATURES
from artifact.predict.sounds import SoundSettings, prepare_recording, read_recording
from artifact.predict.spectra import FRAME, HOP
from errors import UserError


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


def heard(model: str) -> tuple[Any, SoundSettings]:
    """The feature extractor of a Whisper, a folder or a Hub id, and its settings.

    Raises `UserError` for a checkpoint whose recordings cannot be prepared without transformers.
    """
    from transformers import AutoFeatureExtractor

    try:
        extractor = load_extractor(Path(model)) if Path(model).is_dir() else AutoFeatureExtractor.from_pretrained(model)
        settings = sound_settings(extractor, FEATURES)
    except Exception as error:  # transformers raises many types, all of them about this checkpoint
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{model} does not say how recordings become features: {first}",
            "save its feature extractor beside the weights, such as with WhisperProcessor's save_pretrained",
        ) from error
    if settings.features != "slaney-mel":
        raise UserError(f"{model} hears other features than Whisper's, which are not known here yet", "take a Whisper")
    return extractor, settings


@dataclass(frozen=True, slots=True)
class Listener:
    """Prepares recordings, and tokenises what is said in them, of which a model writes `model_max_length` at most."""

    extractor: Any
    tokenizer: Any
    sound: SoundSettings
    model_max_length: int

    def hear(self, path: Path) -> NDArray[np.float32]:
        """The features of a recording, float32 (bins, frames). Raises `UserError` as `read_recording` does."""
        return prepare_recording(read_recording(path, self.sound), self.sound)

    def check(self, path: Path) -> None:
        """Raise that for what is no recording, or not one that the model takes."""
        read_recording(path, self.sound)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both as a checkpoint has them."""
        self.extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
