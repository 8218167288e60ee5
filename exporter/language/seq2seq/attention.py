"""Attention to what an encoder read, traced as ONNX Runtime's MultiHeadAttention, and the passes that use it."""

from dataclasses import dataclass, field
from typing import Any

import torch

from exporter.language.attention import Pass, Past


def attend_to(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, **more: Any
) -> torch.Tensor:
    """Attend to all positions where `mask`, int64 (batch, positions), is 1; to all of them without one.

    Queries are (batch, heads, tokens, head size), keys and values (batch, heads, positions, head size).
    """
    rows, heads, tokens, size = query.shape
    scale, bias = more.get("scaling"), more.get("position_bias")
    flat = query.transpose(1, 2).reshape(rows, tokens, -1)
    padding = None if mask is None else mask.to(torch.int32)
    found: torch.Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [flat, key, value, None, padding, bias],
        {"num_heads": heads, "scale": float(size**-0.5 if scale is None else scale)},
        dtype=query.dtype,
        shape=flat.shape,
        version=1,
    )
    return found.reshape(rows, tokens, heads, size)


@dataclass
class EncoderPass:
    """A pass of an encoder over everything, of which the decoder only makes keys and values."""

    mask: torch.Tensor | None

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """Attend both ways."""
        return attend_to(query, key, value, self.mask, **more)


@dataclass
class DecoderPass(Pass):
    """A pass of a decoder over new tokens, with what was read: keys and values of each layer, and their mask."""

    read: tuple[Past, ...] = ()
    mask: torch.Tensor | None = None
    new: dict[int, Past] = field(default_factory=dict)

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """Attend to what was read where that is what a model hands over, and else to the tokens before."""
        if any(key is pair[0] for pair in self.read):
            return attend_to(query, key, value, self.mask, **more)
        return super().attend(module, query, *self.new[int(module.layer_idx)], **more)
