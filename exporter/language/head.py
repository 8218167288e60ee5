"""Logits of only those tokens that are asked for: of a prompt, its last one's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Head:
    """What goes into a model's head, cut down to the positions that are wanted."""

    def __init__(self) -> None:
        self._wanted: torch.Tensor | None = None

    def want(self, attention_mask: torch.Tensor, tokens: int, positions: torch.Tensor) -> None:
        """Of the `tokens` at a mask's end those at `positions`, int64 (rows or 1, wanted); negative ones count from
        each row's own end."""
        ends = (attention_mask.sum(dim=1) - attention_mask.shape[1] + tokens).clamp(min=1, max=tokens)
        self._wanted = torch.where(positions < 0, positions + ends[:, None], positions)

    def cut(self, module: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """The states (batch, tokens, size) of those alone: (batch, wanted, size)."""
        if self._wanted is None:
            raise RuntimeError("this hook is for a trace")
        states = given[0]
        rows, tokens, size = states.shape
        flat = self._wanted + torch.arange(rows)[:, None] * tokens
        return (states.reshape(rows * tokens, size)[flat.reshape(-1)].reshape(rows, -1, size),)


@contextmanager
def headless(model: Any) -> Iterator[None]:
    """Let a model's head see nothing, and so give no logits, inside the block: for who looks at what comes before."""
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda module, given: (given[0][:, :0],))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def heading(model: Any) -> Iterator[Head]:
    """Let a model's head see no more than is wanted, inside the block."""
    head = Head()
    hook = model.get_output_embeddings().register_forward_pre_hook(head.cut)
    try:
        yield head
    finally:
        hook.remove()
