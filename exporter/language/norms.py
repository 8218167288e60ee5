"""Root-mean-square norms traced as one operator each, where a module computes just that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exporter.language.derivations import OPSET


class Norm(torch.nn.Module):
    """x / sqrt(mean(x²) + epsilon) · weight over the last axis (Zhang and Sennrich, 2019)."""

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight, self._epsilon = torch.nn.Parameter(weight, requires_grad=False), epsilon

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        attributes: dict[str, Any] = {"axis": -1, "epsilon": self._epsilon}
        found: torch.Tensor = torch.onnx.ops.symbolic(
            "RMSNormalization",
            [states, self.weight],
            attributes,
            dtype=states.dtype,
            shape=states.shape,
            version=OPSET,
        )
        return found


@contextmanager
def norming(model: Any) -> Iterator[int]:
    """Replace the norms of a model inside the block; tells how many."""
    replaced = []
    for parent in model.modules():
        for name, child in parent.named_children():
            norm = _norm(child)
            if norm is not None:
                replaced.append((parent, name, child))
    for parent, name, child in replaced:
        setattr(parent, name, _norm(child))
    try:
        yield len(replaced)
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


def _norm(module: Any) -> Norm | None:
    """The same norm as one operator; `None` for what computes anything else, as random states tell."""
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or weight is None or weight.ndim != 1 or epsilon is None:
        return None
    states = torch.randn(3, weight.shape[0], generator=torch.Generator().manual_seed(0))
    if _takes(module, states[:, 1:]):
        return None  # it has a weight, and does not use it
    with torch.no_grad():
        found = module(states)
        plain = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + epsilon)
    for scale in (weight, 1 + weight):  # Gemma's weights are about zero
        if found.shape == plain.shape and torch.allclose(found, plain * scale, atol=1e-5, rtol=1e-5):
            return Norm(scale.detach().clone(), float(epsilon))
    return None


def _takes(module: Any, states: torch.Tensor) -> bool:
    """Whether a module computes anything of these states."""
    try:
        with torch.no_grad():
            module(states)
    except RuntimeError:
        return False
    return True
