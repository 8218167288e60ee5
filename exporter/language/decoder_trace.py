"""The one trace of a causal language model."""

from collections.abc import Iterator
from contextlib import suppress
from inspect import signature
from typing import Any

import onnx_ir
import torch

from artifact.generate.cache import CacheShape, Kept, keys_and_values
from errors import UserError
from exporter.language.attention import Attending, Pass
from exporter.language.head import Head, heading
from exporter.language.recurrence import recurring
from exporter.language.repeat import NotAlikeError, repeated
from exporter.language.rotary import rotating
from exporter.language.stack import Stack
from exporter.language.stand_in import States
from exporter.language.tracing import (
    UNKNOWN_CONTEXT,
    default_to_last,
    name_step,
    ready_to_trace,
    step_example,
    tidied,
    traced,
)

CACHES = "past_key_values", "cache_params"
"""What transformers calls a cache."""

TRIED = 4
"""Tokens after which a cache is looked at."""


def cache_shape(model: Any) -> CacheShape:
    """What a model's layers keep, as one pass leaves it. Raises `UserError` for one that keeps nothing."""
    if model.get_output_embeddings() is None:
        raise UserError(f"{type(model).__name__} predicts no tokens", "take a decoder, such as a Llama or a Mamba")
    with torch.inference_mode():
        found = model(input_ids=torch.zeros(1, TRIED, dtype=torch.int64), use_cache=True)
    cache = next((found[name] for name in CACHES if found.get(name) is not None), None)
    layers = getattr(cache, "layers", ())
    kept = tuple(kept for number, layer in enumerate(layers) for kept in _kept_by(model, number, layer))
    if not kept:
        raise UserError(f"{type(model).__name__} keeps nothing between tokens", "take a decoder, such as a Llama")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return CacheShape(kept, int(context or UNKNOWN_CONTEXT))


def _kept_by(model: Any, number: int, layer: Any) -> Iterator[Kept]:
    """Of one layer of transformers' cache: keys and values, the last inputs of its convolution but the latest, which
    comes with the next token, and the state of its recurrence, whose channels are here the last axis."""
    if getattr(layer, "keys", None) is not None:
        yield from keys_and_values(number, layer.keys.shape[1], layer.keys.shape[3])
    for part in ("conv", "recurrent"):
        states = {place: state for place, state in getattr(layer, f"{part}_states", {}).items() if state is not None}
        if set(states) - {0}:
            raise UserError(
                f"layers of this {type(model).__name__} keep several states each, which cannot be exported yet",
                "take another model",
            )
        for state in states.values():
            *more, channels, size = state.shape[1:]
            yield Kept(number, part, (channels, size - 1) if part == "conv" else (*more, size, channels))


class Step(torch.nn.Module):
    """A pass over new tokens: their ids, a mask over all positions so far, and the cache; logits and the cache.

    Rows begin at position 0 and are filled up at their end, so that every row has a place of its own for the next
    token. With an empty cache this is the prompt, with one token for each row a step.
    """

    def __init__(self, model: Any, shape: CacheShape, attending: Attending, head: Head) -> None:
        super().__init__()
        self.model, self._shape, self._attending, self._head = model, shape, attending, head
        self._cache = next((name for name in CACHES if name in signature(model.forward).parameters), CACHES[0])

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_positions: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens, shape = input_ids.shape[1], self._shape
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens:]
        given = dict(zip((kept.name for kept in shape.kept), past, strict=True))
        now = self._attending.current = Pass.over(tokens, attention_mask, given)
        self._head.want(attention_mask, tokens, logits_positions)
        more: dict[str, Any] = {"use_cache": False}
        if shape.state_bytes:
            layers = 1 + max(kept.layer for kept in shape.kept)
            more = {"use_cache": True, self._cache: States(now, attention_mask.shape[1] - tokens, layers)}
        logits = self.model(input_ids=input_ids, position_ids=positions, **more).logits
        if set(now.present) != set(given):
            raise UserError(
                f"{len(now.present)} of {len(given)} things that layers of this {type(self.model).__name__} keep are "
                "known here",
                "take another model",
            )
        return logits, [now.present[name] for name in given]


def trace(model: Any) -> onnx_ir.Model:
    """Trace an fp32 causal model in eval mode to a graph that serves both the prompt and each token after it.

    Of layers that are all alike only the first are traced, and the last of those repeated: the graph is the same, and
    comes in seconds. Inputs and outputs are named as onnxruntime-genai knows them. The model is left as it was. Raises
    `UserError` when it cannot be traced.
    """
    stack = Stack.of(model)
    if stack is not None:
        # what cannot be repeated is traced whole: the same graph, only later, or the reason why there is none
        with suppress(NotAlikeError, UserError):
            with stack.shortened(model):
                graph = _traced(model)
            return repeated(graph, stack)
    return _traced(model)


def _traced(model: Any) -> onnx_ir.Model:
    """The graph of every layer that a model has now."""
    shape = cache_shape(model)
    given, axes = step_example(shape)
    with (
        ready_to_trace(model) as found,
        rotating(model, found, shape),
        recurring(model, found) as recurrences,
        heading(model) as head,
    ):
        if not recurrences and any(kept.part == "recurrent" for kept in shape.kept):
            raise UserError(
                f"layers of this {type(model).__name__} keep a state by a recurrence that cannot be exported yet",
                "take another model",
            )
        graph = traced(Step(model, shape, found, head), model, given, axes)
    default_to_last(graph, name_step(graph, shape))
    return tidied(graph)
