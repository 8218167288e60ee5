"""Golden texts: what PyTorch makes of a few, for artifacts to prove themselves with."""

from typing import Any

import numpy as np
import torch

from artifact.generate.decoder import Decoder
from artifact.generate.golden import GOLDEN_TEXTS_VERSION, GoldenText, GoldenTexts
from artifact.predict.golden import Sampled
from exporter.language.family import Family
from exporter.language.gate import generated
from exporter.language.passages import told
from exporter.samples import SAMPLES

STEPS, LONGEST = 4, 48
"""Greedy steps after each text, and the tokens of a text from which it is left out."""


def golden_texts(model: Any, family: Family, tokenizer: Any, context: int, checkpoint_sha256: str) -> GoldenTexts:
    """Logits of an fp32 PyTorch model in eval mode for texts of our own and what it greedily writes then."""
    examples, scale = [], 0.0
    reading = family.reading(model)
    longest = min(LONGEST, (reading and reading.most_read_tokens) or LONGEST)
    for text in SAMPLES:
        ids = list(tokenizer(text, truncation=True, max_length=longest + 1)["input_ids"])
        if not 1 <= len(ids) <= longest:
            continue
        begun, inputs = family.begin(model, ids)
        steps = min(STEPS, context - len(begun))
        if steps < 1:
            continue
        whole = generated(model, np.array([begun]), steps, inputs)
        with torch.inference_mode():
            logits = told(model, whole, np.ones_like(whole), inputs)[0, len(begun) - 1 :].float().numpy()
        scale = max(scale, float(abs(logits).max()))
        continued = tuple(whole[0, len(begun) :].tolist())
        examples.append(GoldenText(text=text, ids=tuple(ids), continued=continued, logits=Sampled.of(logits)))
    return GoldenTexts(
        schema_version=GOLDEN_TEXTS_VERSION,
        checkpoint_sha256=checkpoint_sha256,
        scale=scale,
        tolerance=None,
        reference_error=None,
        examples=tuple(examples),
    )


def golden_error(model: Any, family: Family, decoder: Decoder, golden: GoldenTexts) -> float:
    """The largest error of a logit of a decoder on golden texts, with its cache, as a share of the largest logit."""
    largest = 0.0
    for example in golden.examples:
        begun, inputs = family.begin(model, example.ids)
        largest = max(largest, example.logits.error(decoder.told(begun, example.continued, inputs)))
    return largest / golden.scale
