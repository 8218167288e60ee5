"""Rotary positions left to the attention's own kernel, where a model rotates as that does.

Whether it does is not read from its name but tried: its tables at some positions, and what it makes of random states.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from artifact.generate.cache import CacheShape
from exporter.language.attention import Attending, Pass

APPLY = "apply_rotary_pos_emb"
"""The function of a modelling file that rotates queries and keys."""

SCALED = ("dynamic", "longrope")
"""Kinds of rotary embeddings whose angles depend on how long a text is."""

TRIED = 5
"""Heads and positions of the states that a rotation is tried with."""


class Tables(torch.nn.Module):
    """Stands for a module of rotary embeddings: the tables of all positions instead of some positions' values."""

    def __init__(self, own: Any, positions: int) -> None:
        super().__init__()
        self._own, self._positions = [own], positions

    def forward(self, states: torch.Tensor, position_ids: torch.Tensor, *given: Any, **more: Any) -> Any:
        with torch.no_grad():
            every = torch.arange(self._positions)[None]
            found = self._own[0](torch.zeros(1, 1, states.shape[-1]), every, *given, **more)
        return tuple(table[0, :, : table.shape[-1] // 2].contiguous() for table in found)


@contextmanager
def rotating(model: Any, attending: Attending, shape: CacheShape) -> Iterator[bool]:
    """Let the attention rotate inside the block, if the model does it as its kernel would; tells whether it does."""
    children = [(parent, *named) for parent in model.modules() for named in parent.named_children()]
    owners = [(parent, name) for parent, name, child in children if _is_rotary(child, shape.head_size)]
    files = {sys.modules[type(parent).__module__] for parent, _ in owners}
    if not owners or not all(_is_usual(getattr(file, APPLY, None)) for file in files):
        yield False
        return

    def keep(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *_: Any, **__: Any) -> Any:
        if not isinstance(attending.current, Pass):
            raise RuntimeError("this rotation is for a trace")
        attending.current.rotation = cos, sin
        return query, key

    with ExitStack() as stack:
        for parent, name in owners:
            own = getattr(parent, name)
            setattr(parent, name, Tables(own, shape.context))
            stack.callback(setattr, parent, name, own)
        for file in files:
            stack.enter_context(patch.object(file, APPLY, keep))
        yield True


def _is_rotary(module: Any, head_size: int) -> bool:
    """Whether it gives angles for whole heads, the same in every text: some scale them by the length at hand."""
    if not type(module).__name__.endswith("RotaryEmbedding") or getattr(module, "rope_type", "") in SCALED:
        return False
    sizes = [len(buffer) for name, buffer in module.named_buffers() if name.endswith("inv_freq")]
    return bool(sizes) and all(2 * size == head_size for size in sizes)


def _is_usual(rotate: Any) -> bool:
    """Whether a function rotates halves: x·cos + (−x₂, x₁)·sin, as the kernel does (Su et al., 2021)."""
    if rotate is None:
        return False
    random = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, TRIED, TRIED, 8, generator=random) for _ in range(2))
    half = torch.randn(1, TRIED, 4, generator=random)
    cos, sin = (torch.cat([part, part], dim=-1) for part in (half.cos(), half.sin()))
    try:
        found = rotate(query, key, cos, sin)
    except (TypeError, RuntimeError, IndexError):
        return False
    wanted = [x * cos[:, None] + torch.cat([-x[..., 4:], x[..., :4]], dim=-1) * sin[:, None] for x in (query, key)]
    return all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, wanted, strict=True))
