"""transformers' cache, standing for what a traced step is given and leaves.

Models ask a cache where the new tokens begin and hand it what is new; the attention and the recurrence read the cache
themselves.
"""

from typing import Any

import torch
from transformers import Cache

from errors import UserError
from exporter.language.attention import Pass


class StandIn(Cache):  # type: ignore[misc]  # transformers is untyped
    """A cache of so many layers of which only the length is told."""

    def __init__(self, before: Any, layers: int) -> None:
        """`before` is a number of positions, a symbol of the tracer."""
        self._before = before
        self.layers = [None] * layers

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        return self._before

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        return self._before

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[Any, int]:
        return self._before + query_length, 0


class States(StandIn):
    """A cache of layers that keep states, some of which may attend.

    Tokens that fill a row up leave no trace: the last inputs of a convolution are kept from each row's own end on, and
    the recurrence is told which tokens are a row's own.
    """

    def __init__(self, now: Pass, before: Any, layers: int) -> None:
        super().__init__(before, layers)
        self._now = now

    def is_recording_past(self, layer_idx: int) -> bool:
        """True, so that one token is read as several are."""
        return True

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor:
        return self._now.past[f"{layer_idx}.conv"]

    def update_conv_state(
        self, conv_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> torch.Tensor:
        """What was kept and what is new, (batch, channels, kept + tokens)."""
        before = self.get_conv_state(layer_idx)
        both = torch.cat([before, conv_states], dim=-1)
        places = self._now.told.sum(dim=1)[:, None] + torch.arange(before.shape[-1])
        self._now.present[f"{layer_idx}.conv"] = both.gather(2, places[:, None].expand(-1, both.shape[1], -1))
        return both

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor:
        self._now.state = self._now.past[f"{layer_idx}.recurrent"]
        return self._now.state

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> torch.Tensor:
        """Raises `UserError` for a state that is not left by a recurrence that is known here."""
        if recurrent_states is not self._now.left:
            raise UserError(
                f"layer {layer_idx} keeps a state by a recurrence that cannot be exported yet", "take another model"
            )
        self._now.present[f"{layer_idx}.recurrent"] = recurrent_states
        return recurrent_states
