"""Attention over a cache that is given and returned, traced as ONNX Runtime's GroupQueryAttention.

transformers lets an attention be registered by name, so that no modelling file has to be known: whatever a model does
to its queries and keys before, the new ones arrive here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

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
    """One pass over new tokens: what the layers read, and what they leave, by the names of what they keep.

    `last` is the position of each row's last token, int32 (batch); `total` the number of positions that are in use in
    the longest row, an int32 scalar. `told` is 1 where a new token is a row's own, and 0 where it fills the row up,
    int64 (batch, tokens). `rotation` are the tables that the next attention rotates by, `state` what the next
    recurrence begins with, and `left` the state that the last one left.
    """

    past: Mapping[str, torch.Tensor]
    last: torch.Tensor
    total: torch.Tensor
    told: torch.Tensor
    present: dict[str, torch.Tensor] = field(default_factory=dict)
    rotation: tuple[torch.Tensor, torch.Tensor] | None = None
    state: torch.Tensor | None = None
    left: torch.Tensor | None = None

    @classmethod
    def over(cls, tokens: Any, attention_mask: torch.Tensor, past: Mapping[str, torch.Tensor], **more: Any) -> Self:
        """A pass over the last so many `tokens`, a number or a symbol of the tracer, of a mask over all positions."""
        last = attention_mask.sum(dim=1).to(torch.int32) - 1
        total = torch.tensor(attention_mask.shape[1], dtype=torch.int32)
        return cls(past, last, total, attention_mask[:, -tokens:], **more)

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """Attend to the past and to the new tokens before each; queries are (batch, heads, tokens, head size)."""
        names = [f"{int(module.layer_idx)}.{part}" for part in ("key", "value")]
        if names[0] in self.present or names[0] not in self.past:
            raise UserError("layers share a cache, which cannot be exported yet", "take another model")
        past_key, past_value = (self.past[name] for name in names)
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
        found, *present = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [*flat, past_key, past_value, self.last, self.total, *tables, *(() if bias is None else (None, bias))],
            attributes,
            dtypes=[query.dtype] * 3,
            shapes=[flat[0].shape, past_key.shape, past_value.shape],
            version=1,
        )
        self.present.update(zip(names, present, strict=True))
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
