"""Attention over a cache that is given and returned, traced as ONNX Runtime's GroupQueryAttention.

transformers lets an attention be registered by name, so that no modelling file has to be known: whatever a model does
to its queries and keys before, the new ones arrive here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from errors import UserError

NAME = "steelyard_cached"

Past = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer: float32 (batch, heads, positions, head size)."""


class Attends(Protocol):
    """A pass that is traced."""

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """What an attention of the model gives: float32 (batch, tokens, heads, head size)."""


@dataclass
class Pass:
    """One pass over new tokens: what the attentions read, and what they leave.

    `last` is the position of each row's last token, int32 (batch); `total` the number of positions that are in use in
    the longest row, an int32 scalar. `rotation` are the tables that the next attention rotates by.
    """

    past: Sequence[Past]
    last: torch.Tensor
    total: torch.Tensor
    present: dict[int, Past] = field(default_factory=dict)
    rotation: tuple[torch.Tensor, torch.Tensor] | None = None

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """Attend to the past and to the new tokens before each; queries are (batch, heads, tokens, head size)."""
        layer = int(module.layer_idx)
        if layer in self.present or layer >= len(self.past):
            raise UserError("layers share a cache, which cannot be exported yet", "take another model")
        past_key, past_value = self.past[layer]
        batch, heads, tokens, size = query.shape
        if value.shape[-1] != size:
            raise UserError("keys and values differ in size, which cannot be exported yet", "take another model")
        tables, self.rotation = self.rotation or (None, None), None
        flat = [states.transpose(1, 2).reshape(batch, tokens, -1) for states in (query, key, value)]
        scale, bias = more.get("scaling"), more.get("position_bias")
        attributes: dict[str, Any] = {
            "num_heads": heads,
            "kv_num_heads": key.shape[1],
            "scale": float(size**-0.5 if scale is None else scale),
            "do_rotary": int(tables[0] is not None),
        }
        if more.get("softcap"):
            attributes["softcap"] = float(more["softcap"])
        if more.get("sliding_window"):
            attributes["local_window_size"] = int(more["sliding_window"])
        found, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [*flat, past_key, past_value, self.last, self.total, *tables, *(() if bias is None else (None, bias))],
            attributes,
            dtypes=[query.dtype] * 3,
            shapes=[flat[0].shape, past_key.shape, past_value.shape],
            version=1,
        )
        self.present[layer] = present_key, present_value
        return found.reshape(batch, tokens, heads, size)


class Attending:
    """The pass that is traced now; attentions find it here, because models pass on only what they know."""

    def __init__(self) -> None:
        self.current: Attends | None = None

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: object, **more: Any
    ) -> tuple[torch.Tensor, None]:
        """Attend as the pass does; queries are (batch, heads, tokens, head size)."""
        if self.current is None:
            raise RuntimeError("this attention is for a trace")
        return self.current.attend(module, query, key, value, **more), None


@contextmanager
def attending(model: Any) -> Iterator[Attending]:
    """Let a model attend so inside the block."""
    attending, before = Attending(), model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, attending.attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *given, **more: None)
    model.set_attn_implementation(NAME)
    try:
        yield attending
    finally:
        model.set_attn_implementation(before)
