"""transformers' Trainer as fine-tuning uses it: where it trains, what it is told, what it may lose."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from artifact.predict.program import return_freed_blocks
from artifact.records import cannot_write
from errors import UserError
from models.learning_set import GUIDE, TARGETS
from models.objective import Objective
from models.processes import ALONE, Processes
from models.quiet import unseen
from models.training import Device, FinetuneConfig, Optimizer, Schedule, TrainingPrecision
from models.watcher import Watcher

with unseen("datasets", "torchao"):  # of no use to a training of ours, and a hundred megabytes
    from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
    from transformers.trainer_pt_utils import LengthGroupedSampler

SCHEDULES = {
    Schedule.LINEAR: "linear",
    Schedule.COSINE: "cosine",
    Schedule.CONSTANT: "constant_with_warmup",
}
OPTIMIZERS = {Optimizer.ADAMW: "adamw_torch_fused", Optimizer.SGD: "sgd", Optimizer.ADAFACTOR: "adafactor"}

SAVES = 5
"""How often the steps are saved in a training, and validated where training may end early."""


LARGE_BYTES = 2 * 2**20
"""Tensors from this size on are given back to the system when they are freed: what a long batch needed is not kept."""

KEPT_PRIMITIVES = "16"
"""Kernels that oneDNN keeps for shapes that it has met; of its usual 1,024 few are met again, as lengths vary."""


def spare_memory() -> None:
    """Let this process keep less of what a training has needed for a while (`docs/benchmarks.md`)."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_PRIMITIVES)
    return_freed_blocks(LARGE_BYTES)


def choose_device(config: FinetuneConfig) -> Device:
    """The device that `config` means. Raises `UserError` for a GPU that is not there."""
    if config.device is Device.CUDA and not torch.cuda.is_available():
        raise UserError("--device cuda was asked for, but torch finds no GPU", "see: steelyard doctor")
    if config.device is Device.AUTO:
        return Device.CUDA if torch.cuda.is_available() else Device.CPU
    return config.device


def choose_precision(config: FinetuneConfig, device: Device) -> TrainingPrecision:
    """The precision that `config` means on a device. Raises `UserError` for fp16 on a CPU."""
    if config.precision is TrainingPrecision.FP16 and device is Device.CPU:
        raise UserError("--precision fp16 trains on a GPU only", "use bf16 or fp32 on a CPU")
    if config.precision is not TrainingPrecision.AUTO:
        return config.precision
    if device is Device.CUDA:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return TrainingPrecision.BF16 if fast else TrainingPrecision.FP32


def steps_per_epoch(config: FinetuneConfig, examples: int) -> int:
    """Steps in which all examples are seen once."""
    batches = -(-examples // config.batch_size)
    return -(-batches // config.accumulate)


def arguments(
    config: FinetuneConfig,
    device: Device,
    precision: TrainingPrecision,
    state: Path,
    examples: int,
    *,
    logged: bool,
    validated_by: str = "accuracy",
    by_length: bool = True,
    processes: Processes = ALONE,
) -> TrainingArguments:
    """What the Trainer is told for so many examples an epoch; it saves its steps in `state`, and tells its callbacks of
    each if it is `logged`. Batches are of similar length if `by_length`."""
    steps = steps_per_epoch(config, examples) * config.epochs
    every = max(10, steps // SAVES)
    early = {
        "eval_strategy": "steps",
        "eval_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": validated_by,
        "greater_is_better": validated_by != "loss",
        "prediction_loss_only": validated_by == "loss",
        "per_device_eval_batch_size": processes.share(config.batch_size),
    }
    made = TrainingArguments(
        output_dir=str(state),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=processes.share(config.batch_size),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_fraction if config.warmup_fraction < 1 else steps,
        lr_scheduler_type=SCHEDULES[config.schedule],
        optim=OPTIMIZERS[config.optimizer],
        max_grad_norm=config.clip_norm,
        gradient_accumulation_steps=config.accumulate,
        activation_checkpointing=config.checkpointing,
        torch_compile=config.compile,
        train_sampling_strategy="group_by_length" if by_length else "random",
        bf16=precision is TrainingPrecision.BF16,
        fp16=precision is TrainingPrecision.FP16,
        use_cpu=device is Device.CPU,
        seed=config.seed,
        save_steps=every,
        save_total_limit=2,
        logging_strategy="steps" if logged else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number ends the training
        report_to="none",
        disable_tqdm=True,
        label_names=[TARGETS],
        remove_unused_columns=False,  # what a teacher answered is no input
        dataloader_pin_memory=device is Device.CUDA,
        max_steps=ended_at(state, config) or -1,
        **(early if config.patience else {}),
    )
    if made.n_gpu > 1:
        made._n_gpu = 1  # two would learn from twice the examples in a step
    return made


class WatchedTrainer(Trainer):  # type: ignore[misc]  # transformers' class is untyped
    """A Trainer that shows `watch` every loss, follows an objective, and tells a failed save in one sentence."""

    def __init__(self, watch: Watcher, objective: Objective, processes: Processes, **parts: Any) -> None:
        self._watch, self._objective, self._processes = watch, objective, processes
        super().__init__(**parts)
        self.loss_is_scaled_for_ga = True  # the objective divides by the targets of the whole step
        self.model_accepts_loss_kwargs = True  # so these are counted, whatever the model's own loss takes
        self._loss_shifts_labels = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """With several processes, too, the order is that of whole steps: one process would learn in the same."""
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.batch_size *= self._processes.count
        return sampler

    def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*given, **more)
        self._watch.learnt(self._processes.mean(loss), self.state.global_step)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        targets, guide = inputs.pop(TARGETS), inputs.pop(GUIDE, None)
        outputs = model(**inputs)
        loss = self._objective(outputs, targets, guide, num_items_in_batch, inputs.get("attention_mask"))
        if num_items_in_batch is not None:
            loss = loss * self._processes.count  # gradients are averaged over processes, and the count is everybody's
        return (loss, outputs) if return_outputs else loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with writing(Path(self.args.output_dir)):
            super()._save_checkpoint(model, trial)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise `UserError` for a failed write, whichever library made it; torch's own error does not say why."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
    except SafetensorError as error:
        raise cannot_write(path, OSError(str(error))) from error
    except RuntimeError as error:
        raise cannot_write(path, OSError("torch could not finish the file, as on a full disk")) from error


@contextmanager
def enough_memory(config: FinetuneConfig) -> Iterator[None]:
    """Say in one sentence that memory ran out, and what would need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        half, rest = divmod(config.batch_size, 2)
        same = f"--batch-size {half} --accumulate {2 * config.accumulate}, which learns the same, or "
        raise UserError(
            f"memory ran out at {config.batch_size} examples of up to {config.max_length_tokens} tokens",
            f"use {same if half and not rest else ''}--checkpointing, or a smaller --max-length; saved steps are kept",
        ) from error


class Patience(EarlyStoppingCallback):  # type: ignore[misc]  # transformers' class is untyped
    """Ends a training whose validation got no better so often; what it counted outlives an interruption."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = _counted(state.stateful_callbacks)


def ended_at(state: Path, config: FinetuneConfig) -> int | None:
    """The step at which a training ended early before it was interrupted, while it was being saved."""
    saved = last_complete(state) if config.patience else None
    if saved is None:
        return None
    kept = json.loads((Path(saved) / "trainer_state.json").read_bytes())
    return int(kept["global_step"]) if _counted(kept["stateful_callbacks"]) >= config.patience else None


def _counted(callbacks: Any) -> int:
    return int(callbacks[Patience.__name__]["attributes"]["early_stopping_patience_counter"])


def last_complete(state: Path) -> str | None:
    """The newest saved step that was written to its end (the Trainer writes its own state last)."""
    saved = sorted(state.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    complete = [path for path in saved if _is_json(path / "trainer_state.json")]
    for path in set(saved) - set(complete):
        shutil.rmtree(path, ignore_errors=True)
    return str(complete[-1]) if complete else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True
