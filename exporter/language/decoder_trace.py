"""The one trace of a causal language model."""

from typing import Any

import onnx_ir
import torch

from artifact.generate.decoder import CacheShape
from errors import UserError
from exporter.language.attention import Attending, Pass, Past
from exporter.language.head import Head, heading
from exporter.language.rotary import rotating
from exporter.language.tracing import (
    UNKNOWN_CONTEXT,
    default_to_last,
    name_step,
    ready_to_trace,
    step_example,
    tidied,
    traced,
)


def cache_shape(model: Any) -> CacheShape:
    """Read from a model's configuration. Raises `UserError` for one without a cache of keys and values."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not heads or not layers or model.get_output_embeddings() is None:
        raise UserError(f"{type(model).__name__} has no cache of keys and values", "take a decoder, such as a Llama")
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return CacheShape(layers, kept, size, int(getattr(config, "max_position_embeddings", 0) or UNKNOWN_CONTEXT))


class Step(torch.nn.Module):
    """A pass over new tokens: their ids, a mask over all positions so far, and the cache; logits and the cache.

    Rows begin at position 0 and are filled up at their end, so that every row has a place of its own for the next
    token. With an empty cache this is the prompt, with one token for each row a step.
    """

    def __init__(self, model: Any, attending: Attending, head: Head) -> None:
        super().__init__()
        self.model, self._attending, self._head = model, attending, head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_positions: torch.Tensor,
        past_key_values: list[Past],
    ) -> tuple[torch.Tensor, list[Past]]:
        tokens = input_ids.shape[1]
        last = attention_mask.sum(dim=1).to(torch.int32) - 1
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens:]
        total = torch.tensor(attention_mask.shape[1], dtype=torch.int32)
        now = self._attending.current = Pass(past_key_values, last, total)
        self._head.want(attention_mask, tokens, logits_positions)
        logits = self.model(input_ids=input_ids, position_ids=positions, use_cache=False).logits
        if len(now.present) != len(past_key_values):
            raise UserError(
                f"{len(now.present)} of {len(past_key_values)} layers of this {type(self.model).__name__} attend",
                "models that mix attention with other layers cannot be exported yet",
            )
        return logits, [now.present[layer] for layer in range(len(past_key_values))]


def trace(model: Any) -> onnx_ir.Model:
    """Trace an fp32 causal model in eval mode to a graph that serves both the prompt and each token after it.

    Inputs and outputs are named as onnxruntime-genai knows them. The model is left as it was. Raises `UserError` when
    it cannot be traced.
    """
    shape = cache_shape(model)
    given, axes = step_example(shape)
    with ready_to_trace(model) as found, rotating(model, found, shape), heading(model) as head:
        graph = traced(Step(model, found, head), model, given, axes)
    default_to_last(graph, name_step(graph, shape))
    return tidied(graph)
