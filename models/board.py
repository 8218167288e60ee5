"""TensorBoard's event files of a training."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

SCALARS = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}


class Board(TrainerCallback):  # type: ignore[misc]  # transformers' class is untyped
    """Writes loss, learning rate and gradient norm of every step, and validation's accuracy or loss, while it trains.

    What an interrupted attempt wrote after its last saved step is taken back.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make: Any = SummaryWriter  # torch leaves it untyped
        self._writer = make(log_dir=str(self._folder), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        for name, value in (logs or {}).items():
            if name in SCALARS:
                self._writer.add_scalar(SCALARS[name], float(value), state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        name = "accuracy" if "eval_accuracy" in metrics else "loss"
        self._writer.add_scalar(f"validation/{name}", float(metrics[f"eval_{name}"]), state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._writer.flush()  # what a kill must not lose, because a resumed training begins behind it

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._writer.close()
