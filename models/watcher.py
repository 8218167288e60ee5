"""Follows a Trainer: progress for the person, seconds for the record, the same order of examples after a kill."""

import time
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from artifact.progress import Progress


class Watcher(TrainerCallback, ExportableState):  # type: ignore[misc]  # transformers' classes are untyped
    """Reports step, loss and rate after every step, and adds up the seconds of all attempts of one training."""

    def __init__(self, progress: Progress, batch_size: int) -> None:
        self._progress, self._batch_size = progress, batch_size
        self._loss = ""
        self._first_step = 0
        self._started = 0.0
        self._earlier_s = 0.0
        self.seconds_s = 0.0
        """Seconds of training steps so far, those of interrupted attempts included."""

    def state(self) -> dict[str, Any]:
        """What the Trainer keeps of this in every saved step."""
        return {"seconds_s": self.seconds_s}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step, self._started = state.global_step, time.perf_counter()
        self._earlier_s = self.seconds_s = float(state.stateful_callbacks["Watcher"]["seconds_s"])
        self._progress("fine-tune", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}, "

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        spent = time.perf_counter() - self._started
        self.seconds_s = self._earlier_s + spent
        rate = (state.global_step - self._first_step) * self._batch_size / spent
        self._progress("fine-tune", state.global_step, state.max_steps, f"{self._loss}{rate:.0f} examples/s")


class EpochOrder(TrainerCallback):  # type: ignore[misc]
    """Draws the order of an epoch from the seed and its number alone, so that a resumed epoch goes on where it was.

    transformers draws it from the global generator, whose state a resumed training does not have: some examples of the
    epoch would be seen twice and others never.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        order = torch.Generator().manual_seed(args.seed + int(state.epoch or 0))
        train_dataloader.batch_sampler.sampler.generator = order
