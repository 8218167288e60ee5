"""What is exported: a PyTorch module, its inputs with named axes, and its own answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.task import Task
from errors import UserError

Batch = Mapping[str, NDArray[Any]]
"""Input name to array; the first axis is the batch."""

Outputs = Mapping[str, NDArray[np.float32]]
"""Output name to float32 array; the first axis is the batch."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis that may vary, up to `most`, and four sizes that prove it does (the first the least)."""

    name: str
    trials: tuple[int, int, int, int]
    most: int | None = None


BATCH = Axis("batch", (1, 1, 3, 2), most=65536)


class Filling(Enum):
    """What random values of an input look like."""

    IDS = auto()
    MASK = auto()
    ZEROS = auto()
    NORMAL = auto()
    DRAWN = auto()


@dataclass(frozen=True, slots=True)
class Input:
    """One input: int64 or float32, its axes as sizes or `Axis`. `choices` are what IDS and DRAWN draw from."""

    name: str
    dtype: str
    shape: tuple[int | Axis, ...]
    filling: Filling
    choices: NDArray[Any] | None = None

    @property
    def axes(self) -> dict[int, Axis]:
        """The axes that vary, by position."""
        return {position: axis for position, axis in enumerate(self.shape) if isinstance(axis, Axis)}

    def random(self, sizes: Mapping[str, int], seed: int) -> NDArray[Any]:
        """Values for these axis sizes: rows after the first are padded at their end where there is a mask."""
        random = np.random.default_rng(seed)
        shape = tuple(sizes[axis.name] if isinstance(axis, Axis) else axis for axis in self.shape)
        values = np.zeros(shape)
        if self.filling is Filling.MASK:
            values[:] = 1
            values[1:, max(1, shape[1] - 2) :] = 0
        elif self.filling is Filling.NORMAL:
            values = random.standard_normal(shape)
        elif self.choices is not None:
            values = random.choice(self.choices, shape)
        return np.asarray(values, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class Subject:
    """A module in fp32 and eval mode on the CPU, and what it takes and gives.

    `outputs` are in the order of the graph's. A subject whose class is transformers' own is traced by its exporter.
    """

    name: str
    task: Task
    module: Any
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    is_transformers: bool = True

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis that varies, the batch first."""
        return tuple({axis.name: axis for item in self.inputs for axis in item.axes.values()}.values())

    @property
    def has_mask(self) -> bool:
        return any(item.filling is Filling.MASK for item in self.inputs)

    def random(self, sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[Any]]:
        """A batch of these axis sizes; padded positions hold id 0."""
        batch = {item.name: item.random(sizes, seed) for item in self.inputs}
        mask = next((batch[item.name] for item in self.inputs if item.filling is Filling.MASK), None)
        for item in self.inputs:
            if item.filling is Filling.IDS and mask is not None and mask.shape == batch[item.name].shape:
                batch[item.name] = batch[item.name] * mask
        return batch

    def sample(self) -> dict[str, torch.Tensor]:
        """Two rows of unequal length for the trace; an axis of one would be baked in as static."""
        sizes = {axis.name: 2 if axis is BATCH else axis.trials[1] + 1 for axis in self.axes}
        return {name: torch.from_numpy(array) for name, array in self.random(sizes, seed=0).items()}

    def shape_grid(self) -> tuple[dict[str, int], ...]:
        """Axis sizes that prove every axis dynamic: ones, odd sizes, and the most the model takes."""
        grid = [{axis.name: axis.trials[number] for axis in self.axes} for number in range(4)]
        return tuple(sizes for number, sizes in enumerate(grid) if sizes not in grid[:number])

    def answer(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
        """The module's own outputs. Raises `UserError` when it does not give one of `outputs`."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
        with torch.inference_mode():
            found = named_outputs(self.module(**tensors))
        missing = [name for name in self.outputs if name not in found]
        if missing:
            raise UserError(
                f"{self.name} gives {', '.join(found)}, and not {missing[0]}, which {self.task} needs",
                "name another task with --task",
            )
        return {name: np.asarray(found[name].float().numpy()) for name in self.outputs}


def named_outputs(value: Any) -> dict[str, torch.Tensor]:
    """The tensors of what a module returns: a mapping's by name, a sequence's by number, one tensor as `output`.

    Raises `UserError` for anything else.
    """
    if isinstance(value, torch.Tensor):
        return {"output": value}
    if isinstance(value, Mapping):
        return {str(name): tensor for name, tensor in value.items() if isinstance(tensor, torch.Tensor)}
    if isinstance(value, Sequence) and value and all(isinstance(item, torch.Tensor) for item in value):
        return {f"output_{number}": tensor for number, tensor in enumerate(value)}
    raise UserError(
        f"the module returns a {type(value).__name__}", "return a tensor, a tuple of tensors, or a dict of tensors"
    )
