"""One fine-tuning with transformers' Trainer, from its assignment to its record; resumable."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.trainer_callback import PrinterCallback

from artifact.identity import checkpoint_sha256
from artifact.intervals import Estimate, accuracy_interval
from artifact.progress import Progress
from artifact.records import fingerprint, replacing, write_bytes, write_json
from artifact.run_folder import RunFolder
from errors import UserError
from models.answering import answers
from models.assignment import Assignment
from models.base_model import Base, load_base, with_lora
from models.board import Board
from models.checkpoint import load_model, load_tokenizer, quiet
from models.example_set import ExampleSet, length
from models.learning_set import LearningSet, collate, learning_set, lengths
from models.metrics import PROBLEM_TYPES
from models.objective import objective
from models.problem import KINDS
from models.processes import Processes
from models.rows import TaskRows, write_rows
from models.scores import Floats, estimate, scores
from models.task_examples import prepare
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
from models.training import (
    SCHEMA_VERSION,
    Best,
    DataSummary,
    Device,
    FinetuneConfig,
    Problem,
    Scores,
    Told,
    TrainingRecord,
)
from models.turns import Turn
from models.watcher import EpochOrder, Watcher, at_once

LAST_LOSSES = 10
"""Steps whose mean is the final loss."""


def _versions(config: FinetuneConfig) -> dict[str, str]:
    names = ("torch", "transformers", "accelerate", "tokenizers", *(["peft"] if config.lora else []))
    return {name: version(name) for name in names}


@dataclass(frozen=True, slots=True)
class _Judged:
    """How a model did on the held-out examples: the metric's statistics of each, its logits, what is right."""

    statistics: Floats
    logits: NDArray[np.float32] | None
    truth: NDArray[np.int64] | None

    def scores(self, labels: tuple[str, ...]) -> Scores | None:
        if self.logits is None or self.truth is None:
            return None
        return scores(self.truth.tolist(), self.logits.argmax(axis=1).tolist(), labels)

    def value(self, work: Assignment) -> Estimate:
        """The metric of an assignment; an accuracy has Wilson's interval."""
        if work.problem is Problem.SINGLE_LABEL:
            return accuracy_interval(int(self.statistics[:, 0].sum()), len(self.statistics))
        return estimate(work.metric.value, self.statistics)


@dataclass(frozen=True, slots=True)
class _Learnt:
    """How far training went, and how many weights it changed."""

    steps: int
    learnt_weights: int
    best: Best | None


@dataclass(frozen=True, slots=True)
class Job:
    """One training from its assignment to its record, in the folder of `run`."""

    assignment: Assignment
    run: RunFolder
    progress: Progress
    told: Told
    turn: Turn
    tensorboard: bool
    processes: Processes

    def begin(self, *, overwrite: bool) -> None:
        """Make the folder ready and write the examples into it. Raises `UserError`, in every process alike, where it
        holds another training that shall not be replaced."""
        refusal = None
        if self.processes.is_first:
            try:
                self._make_ready(overwrite=overwrite)
                write_rows(self.run.data, "train", self.assignment.parts.train)
                write_rows(self.run.data, "evaluation", self.assignment.parts.evaluation)
            except UserError as error:
                refusal = error.message, error.hint
        refusal = self.processes.first(refusal)
        if refusal is not None:
            raise UserError(*refusal)  # by all, so that none waits for the others

    def _make_ready(self, *, overwrite: bool) -> None:
        run = self.run
        if run.training.is_file() or (run.own_checkpoint.exists() and not self.state.is_dir()):
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
        run.data.mkdir(exist_ok=True)

    @property
    def state(self) -> Path:
        """Where the Trainer saves its steps; another training, device, precision or version never resumes from it."""
        config = self.assignment.config
        device = choose_device(config)
        precision = choose_precision(config, device)
        how = {
            "training": self.assignment.mark,
            "device": device,
            "precision": precision,
            "versions": _versions(config),
        }
        if self.processes.count > 1:
            how["processes"] = str(self.processes.count)
        return self.run.directory / f"training-state-{fingerprint(how)[:12]}"

    def train(self) -> TrainingRecord:
        work, config = self.assignment, self.assignment.config
        device, rows = choose_device(config), work.learnt
        base = load_base(work.base_model, work.task, work.problem, work.labels, config)
        examples, truncated = self._prepare(rows, base)
        held_out, _ = self._prepare(work.parts.evaluation, base)
        validation = None if work.validation is None else self._prepare(work.validation, base)[0]
        counts = {"train": len(rows), "evaluation": len(held_out)}
        summary = DataSummary(
            task=work.task,
            problem=work.problem,
            columns=rows.columns.named,
            examples=counts if validation is None else {**counts, "validation": len(validation)},
            labels=work.counts(rows),
            duplicates_removed=work.parts.duplicates_removed,
            leaked_removed=work.parts.leaked_removed,
            lengths=lengths(examples, truncated),
        )
        self.told(summary)
        watch = Watcher(
            self.progress,
            config.batch_size * config.accumulate,
            work.mark,
            self.turn,
            torch.cuda.synchronize if device is Device.CUDA else at_once,
        )
        with quiet(), enough_memory(config):
            before = self._judge(base.model.to(device).eval(), held_out, "base model") if base.is_ready else None
            weights = sum(weight.numel() for weight in base.model.parameters())  # what LoRA adds is merged in the end
            learnt = self._learn(self._trainer(watch, base, rows, examples, validation), base.processor)
            found = self._judge(load_model(self.run.own_checkpoint).to(device), held_out, "evaluate")
        record = TrainingRecord(
            schema_version=SCHEMA_VERSION,
            fingerprint=work.mark,
            base_model=f"{Path(work.base_model).name} ({work.base_sha256[:12]})",
            config=config,
            precision=choose_precision(config, device),
            device=torch.cuda.get_device_name(0) if device is Device.CUDA else "cpu",
            processes=self.processes.count,
            labels=work.labels,
            data_sha256={"train": work.parts.train.sha256, "evaluation": work.parts.evaluation.sha256},
            data=summary,
            weights=weights,
            learnt_weights=learnt.learnt_weights,
            steps=learnt.steps,
            seconds_s=watch.seconds_s,
            samples_per_s=learnt.steps * len(examples) / steps_per_epoch(config, len(examples)) / watch.seconds_s,
            final_loss=fmean(watch.losses[-LAST_LOSSES:]),
            metric=work.metric.name,
            value=found.value(work),
            before=None if before is None else before.value(work),
            scores=found.scores(work.labels),
            teacher=work.teacher,
            best=learnt.best,
            checkpoint_sha256=checkpoint_sha256(self.run.own_checkpoint),
            versions=_versions(config),
        )
        self.processes.wait()  # everybody has read what is removed next
        if self.processes.is_first:
            self._keep(watch.losses, found)
            write_json(self.run.training, record)
            for state in self.run.directory.glob("training-state-*"):
                shutil.rmtree(state, ignore_errors=True)
        return record

    def _prepare(self, rows: TaskRows, base: Base) -> tuple[ExampleSet, float]:
        """Inputs and truths, and the fraction that was cut."""
        work = self.assignment
        most = work.config.max_length_tokens
        return prepare(
            rows,
            base.processor,
            max_length=min(most, getattr(base.processor, "model_max_length", most)),
            labels=work.labels,
            problem=PROBLEM_TYPES.get(work.problem),
            start_ids=base.start_ids,
        )

    def _learning_set(self, examples: ExampleSet) -> LearningSet:
        return learning_set(examples, KINDS[self.assignment.problem], len(self.assignment.labels))

    def _learn(self, trainer: WatchedTrainer, processor: Any) -> _Learnt:
        """Train and save, and let go of what only training needs."""
        outcome = trainer.train(resume_from_checkpoint=self._resumed())
        weights = list(trainer.model.parameters())
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise UserError(
                "the weights are no numbers after the last step, so nothing was learnt", "try a smaller --learning-rate"
            )
        learnt = _Learnt(
            steps=int(outcome.global_step),
            learnt_weights=sum(weight.numel() for weight in weights if weight.requires_grad),
            best=_best(trainer.state, self.assignment.validated_by) if self.assignment.config.patience else None,
        )
        if self.processes.is_first:
            self._save(trainer.model, processor)
        self.processes.wait()
        return learnt

    def _trainer(
        self, watch: Watcher, base: Base, rows: TaskRows, examples: ExampleSet, validation: ExampleSet | None
    ) -> WatchedTrainer:
        work, config = self.assignment, self.assignment.config
        device = choose_device(config)
        train = self._learning_set(examples)
        if work.teacher is not None:
            train = train.guided(self._guides(rows, Path(work.teacher.checkpoint), device))
        single = work.problem is Problem.SINGLE_LABEL
        trainer = WatchedTrainer(
            watch,
            objective(config, work.teacher, work.problem, work.counts(rows)),
            self.processes,
            model=with_lora(base, config.lora) if config.lora else base.model,
            args=arguments(
                config,
                device,
                choose_precision(config, device),
                self.state,
                len(train),
                logged=self.tensorboard,
                validated_by=work.validated_by,
                by_length=length(examples.rows[0]) > 0,
                processes=self.processes,
            ),
            train_dataset=train,
            eval_dataset=None if validation is None else self._learning_set(validation),
            data_collator=collate(train, KINDS[work.problem]),
            processing_class=base.processor,
            compute_metrics=_share_of_right if single else None,
            callbacks=[watch, EpochOrder(), *self._callbacks()],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _resumed(self) -> str | None:
        """The step to go on from, the same for everybody."""
        found = last_complete(self.state) if self.processes.is_first else None
        return self.processes.first(found)

    def _guides(self, rows: TaskRows, teacher: Path, device: Device) -> NDArray[np.float32]:
        """The teacher's logits for each example, in the order of our labels."""
        model, tokenizer = load_model(teacher).to(device), load_tokenizer(teacher)
        work = self.assignment
        theirs = {name: place for place, name in model.config.id2label.items()}
        order = [theirs[name] for name in work.labels]
        most = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        kind = PROBLEM_TYPES.get(work.problem)
        examples, _ = prepare(rows, tokenizer, max_length=most, labels=work.labels, problem=kind)
        logits = np.empty((len(examples), len(order)), dtype=np.float32)
        for place, found in answers(
            model, examples, work.task, work.config.batch_size, self.progress, "ask the teacher"
        ):
            logits[place] = found["logits"][order]
        return logits

    def _callbacks(self) -> list[Any]:
        patience = self.assignment.config.patience
        stop = [Patience(patience)] if patience else []
        board = self.tensorboard and self.processes.is_first
        return [*stop, *([Board(self.run.tensorboard)] if board else [])]

    def _judge(self, model: Any, examples: ExampleSet, stage: str) -> _Judged:
        """A model's answers to the held-out examples, each given by one process; the Trainer's own copy would answer
        under autocast."""
        mine = range(self.processes.rank, len(examples), self.processes.count)
        work = self.assignment
        metric, single = work.metric, work.problem is Problem.SINGLE_LABEL
        truth = examples.truth or ()
        found: dict[int, tuple[Floats, NDArray[np.float32] | None]] = {}
        for place, outputs in answers(model, examples, work.task, work.config.batch_size, self.progress, stage, mine):
            found[place] = metric.statistics(outputs, truth[place]), outputs["logits"] if single else None
        parts: list[Mapping[int, Any]] = self.processes.gather(found)
        if sum(map(len, parts)) != len(examples):
            raise RuntimeError("an example was answered twice, or not at all")
        every = {place: answer for part in parts for place, answer in part.items()}
        ordered = [every[place] for place in range(len(examples))]
        return _Judged(
            np.stack([statistics for statistics, _ in ordered]),
            np.stack([logits for _, logits in ordered]) if single else None,
            np.array(truth, dtype=np.int64) if single else None,
        )

    def _keep(self, losses: Sequence[float], found: _Judged) -> None:
        """Write the curve and the answers, from which everything else can be worked out again."""
        lines = ["step,loss", *(f"{step},{loss:.6g}" for step, loss in enumerate(losses, start=1)), ""]
        write_bytes(self.run.losses, "\n".join(lines).encode())
        single = {} if found.logits is None or found.truth is None else {"logits": found.logits, "truth": found.truth}
        parts: dict[str, Any] = {"statistics": found.statistics, **single}
        with replacing(self.run.predictions) as path, path.open("wb") as file:
            np.savez(file, **parts)

    def _save(self, model: Any, processor: Any) -> None:
        """Write the checkpoint beside its final place, then put it there; what LoRA learnt is added to the weights."""
        folder = self.run.own_checkpoint
        part = folder.with_name(".checkpoint.part")
        if self.assignment.config.lora:
            model = model.merge_and_unload()
        try:
            with writing(folder):
                shutil.rmtree(part, ignore_errors=True)
                model.to("cpu").save_pretrained(part)
                processor.save_pretrained(part)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _share_of_right(found: Any) -> dict[str, float]:
    """What the Trainer asks of its own validation."""
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    return {"accuracy": float((logits.argmax(-1) == found.label_ids).mean())}


def _best(state: Any, metric: str) -> Best:
    """Of a training that was validated."""
    step = int(str(state.best_model_checkpoint).rpartition("-")[2])
    return Best(step=step, metric=metric, value=float(state.best_metric))
