"""Several processes that train one model together, as torchrun and accelerate start them (light: torch only if there
are)."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from errors import UserError
from models.training import Device

if TYPE_CHECKING:
    import torch

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
            from torch import distributed

            distributed.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of the processes."""
        if self.count == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    def first(self, value: T) -> T:
        """The first process's value."""
        found: T = self.gather(value)[0]
        return found

    def mean(self, value: "torch.Tensor") -> float:
        """The mean of a number over all."""
        if self.count > 1:
            from torch import distributed

            value = value.clone()
            distributed.all_reduce(value)
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


def launched() -> bool:
    """Whether a launcher started this process among others."""
    return _started() > 1


def _started() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: Device) -> Processes:
    """Meet the other processes of this training, if a launcher started any: gloo on CPUs, nccl on GPUs."""
    if not launched():
        return ALONE
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE={_started()} says that {_started()} processes train together, and {missing[0]} is not set",
            "start them with torchrun or accelerate launch, or unset WORLD_SIZE to train in one",
        )
    from accelerate import PartialState
    from torch import distributed

    PartialState(cpu=device is Device.CPU)
    return Processes(distributed.get_rank(), distributed.get_world_size())
