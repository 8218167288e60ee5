"""What the inputs of each layer look like: their second moments, by which rounding errors are weighed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from exporter.language.head import headless
from exporter.language.passages import LONGEST, Passages, told

STRIP = 288
"""Rows of moments that are added to together, from their first one's diagonal on: what lies below mirrors it."""

Moments = dict[str, torch.Tensor]
"""By the name of a layer's module: the sum of x·xᵀ over its inputs, float32 (inputs, inputs)."""

TOKENS = 8192
"""So many tokens are looked at. Texts are read one by one, never as one stream: a text's first token, which all others
attend to, has inputs like no other, and the rounding must know how common it is."""

EVEN = 8
"""Where there are more than `TOKENS`, longer texts are cut to multiples of so many, so that many are equally long:
8,192 tokens of reviews were read in 54 batches, each a product with every layer, and are in 18."""

AT_ONCE = 1024
"""Tokens of texts that are read together, where one text has no more."""

OWN_TEXTS = 64


def second_moments(model: Any, passages: Passages) -> Moments:
    """Of every linear layer's inputs, while a model in eval mode is told texts."""
    moments: Moments = {}
    with _watching(model, moments), headless(model), torch.inference_mode():
        for places, tokens in alike(passages):
            ids = np.array([passages.rows[place][:tokens] for place in places])
            told(model, ids, np.ones_like(ids), passages.inputs(places))
        for found in {id(found): found for found in moments.values()}.values():
            found.copy_(found.triu() + found.triu(1).T)
    return moments


def alike(passages: Passages) -> Iterator[tuple[list[int], int]]:
    """Places of equally long texts, so that none is padded, and their length, as many as are read together; the first
    `TOKENS` tokens of them all."""
    groups: dict[tuple[int, int], list[int]] = {}
    left = TOKENS
    even = EVEN if sum(map(len, passages.rows)) > TOKENS else 1  # of few texts nothing is left out
    for place, row in enumerate(passages.rows):
        if left <= 0:
            break
        read = passages.read_tokens(place)
        cut = min(len(row), LONGEST, left)
        cut -= cut % even if cut > even else 0
        groups.setdefault((cut, read), []).append(place)
        left -= cut + read
    for (tokens, read), places in groups.items():
        texts = max(1, AT_ONCE // (tokens + read))
        for start in range(0, len(places), texts):
            yield places[start : start + texts], tokens


def own_texts(model: Any) -> list[list[int]]:
    """Texts that a model itself makes up, drawn by its own probabilities; the same every time."""
    from transformers import GenerationConfig

    beginning = model.generation_config.bos_token_id
    first = torch.full((OWN_TEXTS, 1), 0 if beginning is None else int(beginning))
    config = GenerationConfig(do_sample=True, max_new_tokens=LONGEST - 1, min_new_tokens=LONGEST - 1, pad_token_id=0)
    state = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        with torch.inference_mode():
            found = model.generate(first, attention_mask=torch.ones_like(first), generation_config=config)
    finally:
        torch.set_rng_state(state)
    return [list(map(int, row)) for row in found]


@contextmanager
def _watching(model: Any, moments: Moments) -> Iterator[None]:
    """Add up the moments inside the block, once for all layers that read the same input."""
    latest: list[Any] = [None, ""]

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def look(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            states, first = latest
            if given[0] is states:
                moments[name] = moments[first]
                return
            flat = given[0].reshape(-1, given[0].shape[-1]).float()
            upper = moments.setdefault(name, torch.zeros(flat.shape[1], flat.shape[1]))
            for row in range(0, len(upper), STRIP):
                upper[row : row + STRIP, row:].addmm_(flat[:, row : row + STRIP].T, flat[:, row:])
            latest[:] = given[0], name

        return look

    head = model.get_output_embeddings()
    layers = [(name, module) for name, module in model.named_modules() if _is_linear(module) and module is not head]
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_linear(module: Any) -> bool:
    """GPT-2's `Conv1D` is one, too, with its weight turned."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
