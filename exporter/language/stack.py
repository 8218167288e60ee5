"""A model's list of layers, of which a few are traced where all are alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch

TRACED = 3
"""Layers that are traced: the first may work out what all share, and the last shows how a layer follows from the one
before it."""

LEAST = 6
"""Models of fewer layers are traced as they are."""

SETTINGS = (bool, int, float, str, tuple, type(None))
ITS_OWN = frozenset({"layer_idx", "training"})
"""Settings of a layer that its graph does not depend on: its number names what it keeps."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of a model, which have the same modules, settings and shapes, and the name of their list."""

    name: str
    layers: tuple[torch.nn.Module, ...]

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """That of a model whose layers are all alike; `None` for others, and for one of a few layers."""
        count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
        lists = {name: part for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)}
        found = [(name, tuple(part)) for name, part in lists.items() if len(part) == count]
        if count < LEAST or len(found) != 1:
            return None
        ((name, layers),) = found
        first = _form(layers[0])
        return cls(name, layers) if all(_form(layer) == first for layer in layers) else None

    @contextmanager
    def shortened(self, model: Any) -> Iterator[None]:
        """Let the model have only its first layers inside the block."""
        path, _, name = self.name.rpartition(".")
        owner, config = model.get_submodule(path), model.config.get_text_config()
        every, types = getattr(owner, name), vars(config).get("layer_types")
        try:
            setattr(owner, name, torch.nn.ModuleList(self.layers[:TRACED]))
            config.num_hidden_layers = TRACED
            if types is not None:
                config.layer_types = types[:TRACED]
            yield
        finally:
            setattr(owner, name, every)
            config.num_hidden_layers = len(every)
            if types is not None:
                config.layer_types = types


def _form(layer: torch.nn.Module) -> list[Any]:
    """What decides a layer's graph: its modules, their settings, and the shapes of their weights."""
    return [
        (
            name,
            type(part),
            {key: value for key, value in vars(part).items() if isinstance(value, SETTINGS) and key not in ITS_OWN},
            [(key, weight.shape, weight.dtype) for key, weight in part.named_parameters(recurse=False)],
            [key for key, _ in part.named_buffers(recurse=False)],
        )
        for name, part in layer.named_modules()
    ]
