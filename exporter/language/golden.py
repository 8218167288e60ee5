"""Golden texts: what PyTorch makes of a few, for artifacts to prove themselves with."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from artifact.generate.decoder import Decoder
from artifact.generate.golden import GOLDEN_TEXTS_VERSION, GoldenText, GoldenTexts
from artifact.predict.golden import Sampled
from exporter.language.family import Family, Sample
from exporter.language.gate import generated
from exporter.language.passages import told

STEPS = 4
"""Greedy steps after each text."""


def golden_texts(
    model: Any, family: Family, samples: Iterable[Sample], context: int, checkpoint_sha256: str
) -> GoldenTexts:
    """Logits of an fp32 PyTorch model in eval mode for samples and what it greedily writes then, for which the context
    has room."""
    examples, scale = [], 0.0
    for sample in samples:
        begun, inputs = family.begin(model, sample.read)
        whole = generated(model, np.array([begun]), min(STEPS, context - len(begun)), inputs)
        with torch.inference_mode():
            logits = told(model, whole, np.ones_like(whole), inputs)[0, len(begun) - 1 :].float().numpy()
        scale = max(scale, float(abs(logits).max()))
        continued = tuple(whole[0, len(begun) :].tolist())
        examples.append(GoldenText(**sample.fields, continued=continued, logits=Sampled.of(logits)))
    return GoldenTexts(
        schema_version=GOLDEN_TEXTS_VERSION,
        checkpoint_sha256=checkpoint_sha256,
        scale=scale,
        tolerance=None,
        reference_error=None,
        examples=tuple(examples),
    )


def golden_error(model: Any, family: Family, decoder: Decoder, samples: Iterable[Sample], golden: GoldenTexts) -> float:
    """The largest error of a logit of a decoder on golden texts, with its cache, as a share of the largest logit."""
    largest = 0.0
    for sample, example in zip(samples, golden.examples, strict=True):
        begun, inputs = family.begin(model, sample.read)
        largest = max(largest, example.logits.error(decoder.told(begun, example.continued, inputs)))
    return largest / golden.scale
