"""Golden texts: what PyTorch makes of a few, for artifacts to prove themselves with."""

from typing import Any

import torch

from artifact.generate.golden import GOLDEN_TEXTS_VERSION, GoldenText, GoldenTexts
from artifact.predict.golden import Sampled
from exporter.causal.gate import generated
from exporter.samples import SAMPLES

STEPS, LONGEST = 4, 48
"""Greedy steps after each text, and the tokens of a text from which it is left out."""


def golden_texts(model: Any, tokenizer: Any, context: int, checkpoint_sha256: str) -> GoldenTexts:
    """Logits of an fp32 PyTorch model in eval mode for texts of our own and their greedy continuation."""
    examples, scale = [], 0.0
    for text in SAMPLES:
        ids = list(tokenizer(text)["input_ids"])
        steps = min(STEPS, context - len(ids))
        if not 1 <= len(ids) <= LONGEST or steps < 1:
            continue
        given = torch.tensor([ids])
        whole = generated(model, given, steps)
        with torch.inference_mode():
            logits = model(input_ids=whole, use_cache=False).logits[0, len(ids) - 1 :].float().numpy()
        scale = max(scale, float(abs(logits).max()))
        continued = tuple(whole[0, len(ids) :].tolist())
        examples.append(GoldenText(text=text, ids=tuple(ids), continued=continued, logits=Sampled.of(logits)))
    return GoldenTexts(
        schema_version=GOLDEN_TEXTS_VERSION,
        checkpoint_sha256=checkpoint_sha256,
        scale=scale,
        tolerance=None,
        reference_error=None,
        examples=tuple(examples),
    )
