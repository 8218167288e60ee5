"""Several processes that train one model together, as torchrun and accelerate start them."""

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from errors import UserError
from models.training import Device

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`, numbered from 0. Only the first writes files and talks."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Return when all are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of the processes."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def first(self, value: T) -> T:
        """The first process's value."""
        found: T = self.gather(value)[0]
        return found

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a number over all."""
        if self.count > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return float(value) / self.count

    def share(self, batch_size: int) -> int:
        """How many examples of a batch are this process's. Raises `UserError` when it cannot be divided."""
        if batch_size % self.count:
            raise UserError(
                f"--batch-size {batch_size} cannot be shared by {self.count} processes",
                f"choose a multiple of {self.count}",
            )
        return batch_size // self.count


ALONE = Processes()
"""A training in one process."""


def join(device: Device) -> Processes:
    """Meet the other processes of this training, if a launcher started any: gloo on CPUs, nccl on GPUs."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE={count} says that {count} processes train together, and {missing[0]} is not set",
            "start them with torchrun or accelerate launch, or unset WORLD_SIZE to train in one",
        )
    from accelerate import PartialState

    PartialState(cpu=device is Device.CPU)
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
