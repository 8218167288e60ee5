"""Follows a Trainer: progress for the person, seconds and losses for the record, the same order of examples after a
kill."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from artifact.progress import Progress
from errors import UserError
from models.turns import Steps, Turn, always


def at_once() -> None:
    """What a device that works in step with the host has to finish."""


class Watcher(TrainerCallback, ExportableState):  # type: ignore[misc]  # transformers' classes are untyped
    """Reports step, loss and rate after every step, and adds up seconds and losses of all attempts of one training.

    Waiting for a turn and saving are no part of the seconds. `finish` waits until the device has done its work.
    """

    def __init__(
        self,
        progress: Progress,
        examples_per_step: int,
        training: str,
        turn: Turn = always,
        finish: Callable[[], None] = at_once,
    ) -> None:
        self._progress, self._examples = progress, examples_per_step
        self._turn, self._finish = turn, finish
        self._mark = 0.0
        self._first = Steps(training, 0, 0, 0.0)
        self._loss = 0.0
        self.seconds_s = 0.0
        self.losses: list[float] = []

    def state(self) -> dict[str, Any]:
        """What the Trainer keeps of this in every saved step."""
        return {"seconds_s": self.seconds_s, "losses": list(self.losses)}

    def learnt(self, loss: float, step: int) -> None:
        """Take note of a part of a step's loss. Raises `UserError` when it is not a number."""
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {loss} at step {step + 1}, so nothing could be learnt from there on",
                "try a smaller --learning-rate, --precision fp32, or look for broken rows in the data",
            )
        self._loss += loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kept = state.stateful_callbacks["Watcher"]
        self.seconds_s, self.losses = float(kept["seconds_s"]), list(kept["losses"])
        self._first = self._steps(state)
        self._mark = time.perf_counter()
        self._progress("fine-tune", state.global_step, state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._spend()
        self._turn(self._steps(state))
        self._mark, self._loss = time.perf_counter(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._finish()
        self._spend()
        self.losses.append(self._loss)
        spent = self.seconds_s - self._first.seconds_s
        rate = (state.global_step - self._first.done) * self._examples / spent
        self._progress("fine-tune", state.global_step, state.max_steps, f"loss {self._loss:.3f}, {rate:.0f} examples/s")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = time.perf_counter()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._turn(self._steps(state, over=True))

    def _steps(self, state: Any, *, over: bool = False) -> Steps:
        return Steps(self._first.training, state.global_step, state.max_steps, self.seconds_s, over)

    def _spend(self) -> None:
        now = time.perf_counter()
        self.seconds_s += now - self._mark
        self._mark = now


class EpochOrder(TrainerCallback):  # type: ignore[misc]
    """Draws the order of an epoch from the seed and its number alone, so that a resumed epoch goes on where it was.

    transformers draws it from the global generator, whose state a resumed training does not have: some examples of the
    epoch would be seen twice and others never.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        batches, epoch = train_dataloader.batch_sampler, int(state.epoch or 0)
        while hasattr(batches, "batch_sampler"):  # of several processes, or of an epoch that goes on
            batches = batches.batch_sampler
        batches.sampler.generator = torch.Generator().manual_seed(args.seed + epoch)
        if hasattr(batches.sampler, "set_epoch"):  # accelerate's own, which draws from its seed and this
            batches.sampler.set_epoch(epoch)
