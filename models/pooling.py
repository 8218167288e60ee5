"""One vector for each text: pooling and normalisation, as part of a model."""

from typing import Any

import torch

from artifact.pooling import POOLED, Pooling, PoolingMode


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """States (batch, sequence, features) and mask (batch, sequence) to (batch, features); padding never counts."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    pools = {
        PoolingMode.MEAN: lambda: (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9),
        PoolingMode.CLS: lambda: _at(states, mask.long().argmax(dim=1)),
        PoolingMode.MAX: lambda: states.masked_fill(weights == 0, torch.finfo(states.dtype).min).amax(dim=1),
        PoolingMode.LAST: lambda: _at(states, (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(dim=1)),
    }
    pooled = pools[pooling.mode]()
    return torch.nn.functional.normalize(pooled, dim=-1) if pooling.normalize else pooled


def _at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The state at one position of each row."""
    index = positions.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)


class PooledModule(torch.nn.Module):
    """A model that answers with `sentence_embedding`, pooled from the states of `model`."""

    def __init__(self, model: Any, pooling: Pooling) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling
        self.config, self.main_input_name = model.config, model.main_input_name
        self.train(model.training)  # a new module is in training mode, and the tracer restores that in all its parts

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        states = self.model(**inputs).last_hidden_state
        return {POOLED: pool(states, inputs["attention_mask"], self.pooling)}
