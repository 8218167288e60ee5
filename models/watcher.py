"""Follows a Trainer: progress for the person, seconds for the record."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from artifact.progress import Progress
from artifact.records import read_if_present, write_json


class Watcher(TrainerCallback):  # type: ignore[misc]  # transformers' class is untyped
    """Reports step, loss and rate after every step, and adds up the seconds of all attempts of one training."""

    def __init__(self, progress: Progress, batch_size: int, state: Path) -> None:
        self._progress, self._batch_size, self._state = progress, batch_size, state
        self._loss = ""
        self._first_step = 0
        self._started = 0.0
        self._earlier_s = 0.0
        self.seconds_s = 0.0
        """Seconds of training steps so far, those of interrupted attempts included."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step, self._started = state.global_step, time.perf_counter()
        self._earlier_s = read_if_present(self._seconds_file(state.global_step), float) or 0.0
        self._progress("fine-tune", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}, "

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        spent = time.perf_counter() - self._started
        self.seconds_s = self._earlier_s + spent
        rate = (state.global_step - self._first_step) * self._batch_size / spent
        self._progress("fine-tune", state.global_step, state.max_steps, f"{self._loss}{rate:.0f} examples/s")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write_json(self._seconds_file(state.global_step), self.seconds_s)

    def _seconds_file(self, step: int) -> Path:
        return self._state / f"seconds-{step}.json"
