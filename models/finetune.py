"""Fine-tune a text classifier with transformers' Trainer, resumable and recorded."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DataCollatorWithPadding
from transformers.trainer_callback import PrinterCallback

from artifact.examples import Examples, label_indices, write_csv
from artifact.identity import checkpoint_sha256
from artifact.progress import Progress, silent
from artifact.records import fingerprint, read_if_present, replacing, write_bytes, write_json
from artifact.run_folder import RunFolder, claim_output
from artifact.task import Task
from errors import UserError
from models.answering import Encoded, answers, encode
from models.base_model import load_base
from models.board import Board
from models.checkpoint import load_model, load_tokenizer, open_checkpoint, quiet
from models.identity import identity
from models.objective import GUIDE, objective
from models.scores import scores
from models.split import Split, split
from models.trainer import (
    Patience,
    WatchedTrainer,
    arguments,
    choose_device,
    choose_precision,
    enough_memory,
    last_complete,
    steps_per_epoch,
    writing,
)
from models.training import SCHEMA_VERSION, Best, Device, FinetuneConfig, Teacher, TrainingRecord
from models.watcher import EpochOrder, Turn, Watcher, always, at_once

LAST_LOSSES = 10
"""Steps whose mean is the final loss."""

VALIDATED = 0.1
"""Share of the training examples that tells when to end."""


def finetune(
    base_model: str,
    data: Examples,
    out: Path,
    *,
    evaluation: Examples | None = None,
    labels: tuple[str, ...] | None = None,
    config: FinetuneConfig | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    turn: Turn = always,
    teacher: Teacher | None = None,
    tensorboard: bool = False,
) -> tuple[TrainingRecord, bool]:
    """Fine-tune `base_model` (a folder or a Hub id) and write `data/`, `checkpoint/` and `training.json` to `out`.

    Returns the record and whether it was made now (`False`: the same training was already there). An interrupted run
    goes on from its last saved step. `labels` names the classes in the sorted order of the labels in the data. `turn`
    is called before each step and may wait; with `tensorboard` the run gets event files. Raises `UserError` for bad
    data, a base model or teacher that cannot be loaded, a folder that holds another training, a loss that is no
    number, or when memory runs out.
    """
    config = config or FinetuneConfig()
    run = claim_output(out)
    parts, names = _name_labels(split(data, evaluation, held_out=config.held_out, seed=config.seed), labels)
    base_sha256 = identity(base_model)
    taught = None if teacher is None else [_check_teacher(teacher, names), teacher.share, teacher.temperature]
    mark = fingerprint(
        {
            "base": base_sha256,
            "config": msgspec.to_builtins(config),
            "train": parts.train.sha256,
            "evaluation": parts.evaluation.sha256,
            "labels": names,
            "teacher": taught,
        }
    )
    earlier = read_if_present(run.training, TrainingRecord)
    if earlier is not None and earlier.fingerprint == mark and _intact(run, earlier):
        return earlier, False
    job = _Job(base_model, base_sha256, parts, names, config, run, mark, progress, turn, teacher, tensorboard)
    if run.training.is_file() or (run.own_checkpoint.exists() and not job.state.is_dir()):
        if not overwrite:
            raise UserError(
                f"{run.directory} holds another training (other data, model or settings), or a damaged one",
                "choose another --out, or add --overwrite to replace it",
            )
        run.training.unlink(missing_ok=True)  # so that a kill never leaves an old model beside new data
        for folder in (run.own_checkpoint, run.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (run.losses, run.predictions):
            file.unlink(missing_ok=True)
    run.begin()
    write_csv(run.training_data, parts.train)
    write_csv(run.evaluation_data, parts.evaluation)
    return job.train(), True


def _name_labels(parts: Split, names: tuple[str, ...] | None) -> tuple[Split, tuple[str, ...]]:
    """The examples with their final labels, and these in order: as sorted in the data, numbers by their size."""
    found = tuple(sorted(set(parts.train.labels), key=lambda label: (int(label) if label.isdecimal() else -1, label)))
    if names is not None and len(names) != len(found):
        raise UserError(
            f"--labels names {len(names)} labels, the data has {len(found)}: {', '.join(found)}",
            "name them in this order",
        )
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"--labels names '{Counter(names).most_common(1)[0][0]}' twice", "give each label its own name")
    unknown = sorted(set(parts.evaluation.labels) - set(found))
    if unknown:
        row = parts.evaluation.labels.index(unknown[0]) + 1
        raise UserError(
            f"{parts.evaluation.source}, example {row}: unknown label '{unknown[0]}'",
            f"the training data has: {', '.join(found)}",
        )
    final = dict(zip(found, names or found, strict=True))
    named = replace(parts, train=parts.train.relabel(final), evaluation=parts.evaluation.relabel(final))
    return named, tuple(final.values())


def _check_teacher(teacher: Teacher, labels: tuple[str, ...]) -> str:
    """Identity of the teacher. Raises `UserError` for a checkpoint that classifies something else."""
    checkpoint = open_checkpoint(Path(teacher.checkpoint))
    if checkpoint.task is not Task.TEXT_CLASSIFICATION or sorted(checkpoint.labels) != sorted(labels):
        known = ", ".join(checkpoint.labels) or checkpoint.task
        raise UserError(
            f"the teacher {teacher.checkpoint} answers {known}, and the data has: {', '.join(labels)}",
            "give a checkpoint that was fine-tuned on these labels; --labels names those of the data",
        )
    return checkpoint.sha256


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers")}


def _intact(run: RunFolder, record: TrainingRecord) -> bool:
    return run.own_checkpoint.is_dir() and checkpoint_sha256(run.own_checkpoint) == record.checkpoint_sha256


@dataclass(frozen=True, slots=True)
class _Job:
    """One training from its inputs to its record."""

    base_model: str
    base_sha256: str
    parts: Split
    labels: tuple[str, ...]
    config: FinetuneConfig
    run: RunFolder
    mark: str
    progress: Progress
    turn: Turn = always
    teacher: Teacher | None = None
    tensorboard: bool = False

    @property
    def state(self) -> Path:
        """Where the Trainer saves its steps; another training, device, precision or version never resumes from it."""
        device = choose_device(self.config)
        precision = choose_precision(self.config, device)
        how = {"training": self.mark, "device": device, "precision": precision, "versions": _versions()}
        return self.run.directory / f"training-state-{fingerprint(how)[:12]}"

    def train(self) -> TrainingRecord:
        device = choose_device(self.config)
        precision = choose_precision(self.config, device)
        tokenizer, model = load_base(self.base_model, self.labels, self.config)
        examples, validation = self._validated()
        train, truncated = self._encoded(tokenizer, examples)
        watch = Watcher(
            self.progress,
            self.config.batch_size * self.config.accumulate,
            self.mark,
            self.turn,
            torch.cuda.synchronize if device is Device.CUDA else at_once,
        )
        with quiet(), enough_memory(self.config):
            if self.teacher is not None:
                self._guide(train, examples, Path(self.teacher.checkpoint), device)
            trainer = WatchedTrainer(
                watch,
                objective(self.config, self.teacher, examples.labels, self.labels),
                model=model,
                args=arguments(self.config, device, precision, self.state, len(train), logged=self.tensorboard),
                train_dataset=train,
                eval_dataset=None if validation is None else self._encoded(tokenizer, validation)[0],
                data_collator=DataCollatorWithPadding(tokenizer),
                processing_class=tokenizer,
                compute_metrics=_share_of_right,
                callbacks=[watch, EpochOrder(), *self._callbacks()],
            )
            trainer.remove_callback(PrinterCallback)
            outcome = trainer.train(resume_from_checkpoint=last_complete(self.state))
            _check_weights(trainer.model)
            self._save(trainer.model, tokenizer)
            logits, truth = self._answers(load_model(self.run.own_checkpoint).to(device), tokenizer)
        found = scores(truth, logits.argmax(axis=1).tolist(), self.labels)
        self._keep(watch.losses, logits, truth)
        per_epoch = steps_per_epoch(self.config, len(train))
        counts = {"train": len(examples), "evaluation": len(self.parts.evaluation)}
        record = TrainingRecord(
            schema_version=SCHEMA_VERSION,
            fingerprint=self.mark,
            base_model=f"{Path(self.base_model).name} ({self.base_sha256[:12]})",
            config=self.config,
            precision=precision,
            device=torch.cuda.get_device_name(0) if device is Device.CUDA else "cpu",
            labels=self.labels,
            data_sha256={"train": self.parts.train.sha256, "evaluation": self.parts.evaluation.sha256},
            examples=counts if validation is None else {**counts, "validation": len(validation)},
            class_counts=dict(Counter(examples.labels)),
            duplicates_removed=self.parts.duplicates_removed,
            leaked_removed=self.parts.leaked_removed,
            truncated_fraction=truncated,
            steps=int(outcome.global_step),
            seconds_s=watch.seconds_s,
            samples_per_s=outcome.global_step * len(train) / per_epoch / watch.seconds_s,
            final_loss=fmean(watch.losses[-LAST_LOSSES:]),
            accuracy_fraction=found.accuracy.value,
            scores=found,
            teacher=self.teacher,
            best=_best(trainer.state) if self.config.patience else None,
            checkpoint_sha256=checkpoint_sha256(self.run.own_checkpoint),
            versions=_versions(),
        )
        write_json(self.run.training, record)
        for state in self.run.directory.glob("training-state-*"):
            shutil.rmtree(state, ignore_errors=True)
        return record

    def _validated(self) -> tuple[Examples, Examples | None]:
        """The examples to learn from, and those that tell when to end, if anything shall."""
        if not self.config.patience:
            return self.parts.train, None
        number = max(len(self.labels), round(VALIDATED * len(self.parts.train)))
        rare = [name for name, count in Counter(self.parts.train.labels).items() if count < 2 / VALIDATED]
        if rare:
            least = round(2 / VALIDATED)
            raise UserError(
                f"--patience validates with a tenth of the examples, and '{rare[0]}' has fewer than {least}",
                "leave --patience out, or give more examples of it",
            )
        parts = split(self.parts.train, None, held_out=number, seed=self.config.seed)
        return parts.train, parts.evaluation

    def _encoded(self, tokenizer: Any, examples: Examples) -> tuple[list[Encoded], float]:
        """Inputs with the position of each label, and the fraction of texts that were cut."""
        rows, truncated = encode(tokenizer, examples.texts)
        for row, label in zip(rows, label_indices(examples, self.labels), strict=True):
            row["label"] = label
        return rows, truncated

    def _guide(self, train: list[Encoded], examples: Examples, teacher: Path, device: Device) -> None:
        """Put the teacher's logits beside each example, in the order of our labels."""
        model, tokenizer = load_model(teacher).to(device), load_tokenizer(teacher)
        rows, _ = encode(tokenizer, examples.texts)
        logits = answers(model, tokenizer, rows, self.config.batch_size, self.progress, "ask the teacher")
        theirs = {name: place for place, name in model.config.id2label.items()}
        order = [theirs[name] for name in self.labels]
        for row, guide in zip(train, logits[:, order].tolist(), strict=True):
            row[GUIDE] = guide

    def _callbacks(self) -> list[Any]:
        stop = [Patience(self.config.patience)] if self.config.patience else []
        return [*stop, *([Board(self.run.tensorboard)] if self.tensorboard else [])]

    def _answers(self, model: Any, tokenizer: Any) -> tuple[NDArray[np.float32], list[int]]:
        """Logits of the saved model in fp32 for the held-out examples, and what is right.

        The Trainer's own copy would answer under autocast.
        """
        rows, _ = encode(tokenizer, self.parts.evaluation.texts)
        logits = answers(model, tokenizer, rows, self.config.batch_size, self.progress, "evaluate")
        return logits, label_indices(self.parts.evaluation, self.labels)

    def _keep(self, losses: Sequence[float], logits: NDArray[np.float32], truth: Sequence[int]) -> None:
        """Write the curve and the answers, from which everything else can be worked out again."""
        lines = ["step,loss", *(f"{step},{loss:.6g}" for step, loss in enumerate(losses, start=1)), ""]
        write_bytes(self.run.losses, "\n".join(lines).encode())
        with replacing(self.run.predictions) as path, path.open("wb") as file:
            np.savez(file, logits=logits, truth=np.asarray(truth, dtype=np.int64))

    def _save(self, model: Any, tokenizer: Any) -> None:
        """Write the checkpoint beside its final place, then put it there."""
        folder = self.run.own_checkpoint
        part = folder.with_name(".checkpoint.part")
        try:
            with writing(folder):
                shutil.rmtree(part, ignore_errors=True)
                model.to("cpu").save_pretrained(part)
                tokenizer.save_pretrained(part)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _share_of_right(found: Any) -> dict[str, float]:
    """What the Trainer asks of its own validation."""
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    return {"accuracy": float((logits.argmax(-1) == found.label_ids).mean())}


def _check_weights(model: Any) -> None:
    """Raise `UserError` for what the last step made of a loss that was still a number."""
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise UserError(
            "the weights are no numbers after the last step, so nothing was learnt", "try a smaller --learning-rate"
        )


def _best(state: Any) -> Best:
    """Of a training that was validated."""
    step = int(str(state.best_model_checkpoint).rpartition("-")[2])
    return Best(step=step, accuracy_fraction=float(state.best_metric))
