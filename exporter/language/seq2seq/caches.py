"""transformers' cache of an encoder-decoder, standing for what a traced step is given and leaves.

What models get back for their new keys and values is only looked at, because the attention reads the cache itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, EncoderDecoderCache

from exporter.language.attention import Past
from exporter.language.stand_in import StandIn


@dataclass
class Layer:
    """Keys and values of one layer: float32 (batch, heads, positions, head size)."""

    keys: torch.Tensor
    values: torch.Tensor


class SelfCache(StandIn):
    """What a decoder wrote before; `new` are the keys and values of each layer's new tokens."""

    def __init__(self, before: Any, layers: int) -> None:
        super().__init__(before, layers)
        self.new = dict[int, Past]()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Past:
        """Keys and values as long as the whole text, whose numbers mean nothing: position biases ask for their size."""
        self.new[layer_idx] = key_states, value_states
        rows, heads, tokens, size = key_states.shape
        whole = key_states.new_zeros(1).expand(rows, heads, self._before + tokens, size)
        return whole, whole


class CrossCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """What a decoder attends to of the encoder: given, or kept as the decoder first makes it."""

    def __init__(self, given: Sequence[Past] = ()) -> None:
        self.layers = [Layer(*pair) for pair in given]
        self.made: dict[int, Past] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Past:
        self.made[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        return self.layers[layer_idx].keys.shape[2] if self.layers else 0


class Caches(EncoderDecoderCache):  # type: ignore[misc]  # transformers is untyped
    """Both of them, in a decoder's hands."""

    def __init__(self, written: SelfCache, read: CrossCache) -> None:
        self.self_attention_cache, self.cross_attention_cache = written, read
        self.is_updated = dict.fromkeys(range(len(written.layers)), bool(read.layers))
