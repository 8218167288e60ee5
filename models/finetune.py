"""Fine-tune a model with transformers' Trainer, resumable and recorded."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers.trainer_callback import PrinterCallback

from artifact.identity import checkpoint_sha256
from artifact.progress import Progress, silent
from artifact.records import fingerprint, read_if_present, replacing, write_bytes, write_json
from artifact.run_folder import RunFolder, claim_output
from artifact.task import Task
from errors import UserError
from models.answering import answers
from models.base_model import Base, load_base, with_lora
from models.board import Board
from models.checkpoint import load_model, load_tokenizer, open_checkpoint, quiet
from models.example_set import ExampleSet, length
from models.identity import identity
from models.learning_set import LearningSet, collate, learning_set, lengths
from models.metrics import PROBLEM_TYPES, Metric, metric_of
from models.objective import objective
from models.problem import KINDS, check_labels, label_names, problem_of_rows
from models.processes import Processes, join
from models.rows import TaskRows, write_rows
from models.scores import Floats, estimate, scores
from models.split import Split, split
from models.task_examples import prepare
from models.trainer import (
    Patience,
    WatchedTrainer,
    arguments,
    choose_device,
    choose_precision,
    enough_memory,
    last_complete,
    spare_memory,
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
    Teacher,
    TrainingRecord,
)
from models.watcher import EpochOrder, Turn, Watcher, always, at_once

Told = Callable[[DataSummary], None]
"""Hears what is going to be learnt from."""

LAST_LOSSES = 10
"""Steps whose mean is the final loss."""

VALIDATED = 0.1
"""Share of the training examples that tells when to end."""


def finetune(
    base_model: str,
    data: TaskRows,
    out: Path,
    *,
    evaluation: TaskRows | None = None,
    labels: tuple[str, ...] | None = None,
    problem: Problem | None = None,
    config: FinetuneConfig | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    told: Told = lambda summary: None,
    turn: Turn = always,
    teacher: Teacher | None = None,
    tensorboard: bool = False,
) -> tuple[TrainingRecord, bool]:
    """Fine-tune `base_model` (a folder, a GGUF file or a Hub id); `data/`, `checkpoint/`, `training.json` go to `out`.

    Returns the record and whether it was made now (`False`: the same training was already there). An interrupted run
    goes on from its last saved step. `labels` names the classes in the sorted order of the labels in the data, and
    `problem` says what these are where it does not follow from them. `told` hears of the data before anything is
    learnt. `turn` is called before each step and may wait; with `tensorboard` the run gets event files. Under torchrun
    or accelerate's launcher the processes train one model, and the first of them writes. Raises `UserError` for bad
    data, a base model or teacher that cannot be loaded, a folder that holds another training, a loss that is no number,
    or when memory runs out.
    """
    config = config or FinetuneConfig()
    problem = problem_of_rows(data, problem)
    for part in (data, *([evaluation] if evaluation else [])):
        check_labels(part, problem)
    parts = split(data, evaluation, held_out=config.held_out, seed=config.seed, problem=problem)
    parts, names = _name_labels(parts, problem, labels, own_split=evaluation is None)
    base_sha256 = identity(base_model)
    taught = (
        None
        if teacher is None
        else [_check_teacher(teacher, data.task, problem, names), teacher.share, teacher.temperature]
    )
    mark = fingerprint(
        {
            "base": base_sha256,
            "config": msgspec.to_builtins(config),
            "task": data.task,
            "problem": problem,
            "train": parts.train.sha256,
            "evaluation": parts.evaluation.sha256,
            "labels": names,
            "teacher": taught,
        }
    )
    processes = join(choose_device(config))
    run = claim_output(out)
    earlier = processes.first(read_if_present(run.training, TrainingRecord))
    if earlier is not None and earlier.fingerprint == mark and processes.first(_intact(run, earlier)):
        return earlier, False
    lesson = _Lesson(data.task, problem, parts, names, teacher)
    job = _Job(base_model, base_sha256, lesson, config, run, mark, progress, told, turn, tensorboard, processes)
    processes.share(config.batch_size)
    objective(config, teacher, problem, lesson.counts(parts.train))  # refuses before anything is replaced
    refusal = None
    if processes.is_first:
        try:
            _begin(run, job.state, overwrite=overwrite)
            write_rows(run.data, "train", parts.train)
            write_rows(run.data, "evaluation", parts.evaluation)
        except UserError as error:
            refusal = error.message, error.hint
    refusal = processes.first(refusal)
    if refusal is not None:
        raise UserError(*refusal)  # by all, so that none waits for the others
    spare_memory()
    return job.train(), True


def _begin(run: RunFolder, state: Path, *, overwrite: bool) -> None:
    """Make the folder ready. Raises `UserError` when it holds another training that shall not be replaced."""
    if run.training.is_file() or (run.own_checkpoint.exists() and not state.is_dir()):
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


def _name_labels(
    parts: Split, problem: Problem, names: tuple[str, ...] | None, *, own_split: bool
) -> tuple[Split, tuple[str, ...]]:
    """The examples with their final labels, and these in order: as sorted in the data, numbers by their size.

    A rare tag may have fallen into our own held-out part alone; of an evaluation file that is an error.
    """
    known = (*parts.train.rows, *parts.evaluation.rows) if own_split else parts.train.rows
    found = label_names(known, problem)
    if problem is Problem.TAGS and names is None and all(name.isdecimal() for name in found):
        raise UserError(
            f"{parts.train.source} has numbers for tags, and which of them is no entity cannot be known",
            f"name them in their order, such as --labels O,B-PER,I-PER for {', '.join(found[:3])}",
        )
    if names is not None and len(names) != len(found):
        raise UserError(
            f"--labels names {len(names)} labels, the data has {len(found)}: {', '.join(found)}",
            "name them in this order" if found else "leave --labels out",
        )
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"--labels names '{Counter(names).most_common(1)[0][0]}' twice", "give each label its own name")
    kind = KINDS[problem]
    for row in parts.evaluation.rows:
        unknown = [name for name in kind.names(row) if name not in found]
        if unknown:
            raise UserError(f"{row.place}: unknown label '{unknown[0]}'", f"the training data has: {', '.join(found)}")
    final = dict(zip(found, names or found, strict=True))
    train, evaluation = (
        part.relabel(lambda label: kind.rename(label, final)) for part in (parts.train, parts.evaluation)
    )
    return replace(parts, train=train, evaluation=evaluation), tuple(final.values())


def _check_teacher(teacher: Teacher, task: Task, problem: Problem, labels: tuple[str, ...]) -> str:
    """Identity of the teacher. Raises `UserError` for a checkpoint that classifies something else."""
    checkpoint = open_checkpoint(Path(teacher.checkpoint))
    if task is not Task.TEXT_CLASSIFICATION or problem is not Problem.SINGLE_LABEL:
        raise UserError("a teacher is for texts of one label each", "leave --teacher out")
    if checkpoint.task is not Task.TEXT_CLASSIFICATION or sorted(checkpoint.labels) != sorted(labels):
        known = ", ".join(checkpoint.labels) or checkpoint.task
        raise UserError(
            f"the teacher {teacher.checkpoint} answers {known}, and the data has: {', '.join(labels)}",
            "give a checkpoint that was fine-tuned on these labels; --labels names those of the data",
        )
    return checkpoint.sha256


def _versions(config: FinetuneConfig) -> dict[str, str]:
    names = ("torch", "transformers", "accelerate", "tokenizers", *(["peft"] if config.lora else []))
    return {name: version(name) for name in names}


def _intact(run: RunFolder, record: TrainingRecord) -> bool:
    return run.own_checkpoint.is_dir() and checkpoint_sha256(run.own_checkpoint) == record.checkpoint_sha256


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What is to be learnt: examples with their final labels, and who helps."""

    task: Task
    problem: Problem
    parts: Split
    labels: tuple[str, ...]
    teacher: Teacher | None

    @property
    def metric(self) -> Metric:
        return metric_of(self.task, self.problem, len(self.labels))

    @property
    def validated_by(self) -> str:
        """What tells which step was the best."""
        return "accuracy" if self.problem is Problem.SINGLE_LABEL else "loss"

    def prepare(self, rows: TaskRows, base: Base, config: FinetuneConfig) -> tuple[ExampleSet, float]:
        """Inputs and truths, and the fraction that was cut."""
        most = min(config.max_length_tokens, getattr(base.processor, "model_max_length", config.max_length_tokens))
        return prepare(
            rows,
            base.processor,
            max_length=most,
            labels=self.labels,
            problem=PROBLEM_TYPES.get(self.problem),
            start_ids=base.start_ids,
        )

    def learning_set(self, examples: ExampleSet) -> LearningSet:
        return learning_set(examples, KINDS[self.problem], len(self.labels))

    def counts(self, rows: TaskRows) -> dict[str, int]:
        """How often each label occurs."""
        found = Counter(name for row in rows.rows for name in KINDS[self.problem].names(row))
        return {name: found[name] for name in self.labels if name in found}


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


@dataclass(frozen=True, slots=True)
class _Learnt:
    """How far training went, and how many weights it changed."""

    steps: int
    learnt_weights: int
    best: Best | None


@dataclass(frozen=True, slots=True)
class _Job:
    """One training from its inputs to its record."""

    base_model: str
    base_sha256: str
    lesson: _Lesson
    config: FinetuneConfig
    run: RunFolder
    mark: str
    progress: Progress
    told: Told
    turn: Turn
    tensorboard: bool
    processes: Processes

    @property
    def state(self) -> Path:
        """Where the Trainer saves its steps; another training, device, precision or version never resumes from it."""
        device = choose_device(self.config)
        precision = choose_precision(self.config, device)
        how = {"training": self.mark, "device": device, "precision": precision, "versions": _versions(self.config)}
        if self.processes.count > 1:
            how["processes"] = str(self.processes.count)
        return self.run.directory / f"training-state-{fingerprint(how)[:12]}"

    def train(self) -> TrainingRecord:
        device, lesson, config = choose_device(self.config), self.lesson, self.config
        rows, validating = self._validated()
        base = load_base(self.base_model, lesson.task, lesson.problem, lesson.labels, config)
        examples, truncated = lesson.prepare(rows, base, config)
        held_out, _ = lesson.prepare(lesson.parts.evaluation, base, config)
        validation = None if validating is None else lesson.prepare(validating, base, config)[0]
        counts = {"train": len(rows), "evaluation": len(held_out)}
        summary = DataSummary(
            task=lesson.task,
            problem=lesson.problem,
            columns=rows.columns.named,
            examples=counts if validation is None else {**counts, "validation": len(validation)},
            labels=lesson.counts(rows),
            duplicates_removed=lesson.parts.duplicates_removed,
            leaked_removed=lesson.parts.leaked_removed,
            lengths=lengths(examples, truncated),
        )
        self.told(summary)
        watch = Watcher(
            self.progress,
            config.batch_size * config.accumulate,
            self.mark,
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
            fingerprint=self.mark,
            base_model=f"{Path(self.base_model).name} ({self.base_sha256[:12]})",
            config=config,
            precision=choose_precision(config, device),
            device=torch.cuda.get_device_name(0) if device is Device.CUDA else "cpu",
            processes=self.processes.count,
            labels=lesson.labels,
            data_sha256={"train": lesson.parts.train.sha256, "evaluation": lesson.parts.evaluation.sha256},
            data=summary,
            weights=weights,
            learnt_weights=learnt.learnt_weights,
            steps=learnt.steps,
            seconds_s=watch.seconds_s,
            samples_per_s=learnt.steps * len(examples) / steps_per_epoch(config, len(examples)) / watch.seconds_s,
            final_loss=fmean(watch.losses[-LAST_LOSSES:]),
            metric=lesson.metric.name,
            value=estimate(lesson.metric.value, found.statistics),
            before=None if before is None else estimate(lesson.metric.value, before.statistics),
            scores=found.scores(lesson.labels),
            teacher=lesson.teacher,
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

    def _learn(self, trainer: WatchedTrainer, processor: Any) -> "_Learnt":
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
            best=_best(trainer.state, self.lesson.validated_by) if self.config.patience else None,
        )
        if self.processes.is_first:
            self._save(trainer.model, processor)
        self.processes.wait()
        return learnt

    def _trainer(
        self, watch: Watcher, base: Base, rows: TaskRows, examples: ExampleSet, validation: ExampleSet | None
    ) -> WatchedTrainer:
        lesson, config, device = self.lesson, self.config, choose_device(self.config)
        train = lesson.learning_set(examples)
        if lesson.teacher is not None:
            train = train.guided(self._guides(rows, Path(lesson.teacher.checkpoint), device))
        single = lesson.problem is Problem.SINGLE_LABEL
        trainer = WatchedTrainer(
            watch,
            objective(config, lesson.teacher, lesson.problem, lesson.counts(rows)),
            self.processes,
            model=with_lora(base, config.lora) if config.lora else base.model,
            args=arguments(
                config,
                device,
                choose_precision(config, device),
                self.state,
                len(train),
                logged=self.tensorboard,
                validated_by=lesson.validated_by,
                by_length=length(examples.rows[0]) > 0,
                processes=self.processes,
            ),
            train_dataset=train,
            eval_dataset=None if validation is None else lesson.learning_set(validation),
            data_collator=collate(train, KINDS[lesson.problem]),
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

    def _validated(self) -> tuple[TaskRows, TaskRows | None]:
        """The examples to learn from, and those that tell when to end, if anything shall."""
        train, problem = self.lesson.parts.train, self.lesson.problem
        if not self.config.patience:
            return train, None
        number = max(len(self.lesson.labels), round(VALIDATED * len(train)))
        counts = self.lesson.counts(train) if problem is Problem.SINGLE_LABEL else {}
        rare = [name for name, count in counts.items() if count < 2 / VALIDATED]
        if rare or number >= len(train):
            least = round(2 / VALIDATED)
            few = f"'{rare[0]}' has fewer than {least}" if rare else f"there are only {len(train)}"
            raise UserError(
                f"--patience validates with a tenth of the examples, and {few}",
                "leave --patience out, or give more examples of it",
            )
        parts = split(train, None, held_out=number, seed=self.config.seed, problem=problem)
        return parts.train, parts.evaluation

    def _guides(self, rows: TaskRows, teacher: Path, device: Device) -> NDArray[np.float32]:
        """The teacher's logits for each example, in the order of our labels."""
        model, tokenizer = load_model(teacher).to(device), load_tokenizer(teacher)
        theirs = {name: place for place, name in model.config.id2label.items()}
        order = [theirs[name] for name in self.lesson.labels]
        most = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        kind = PROBLEM_TYPES.get(self.lesson.problem)
        examples, _ = prepare(rows, tokenizer, max_length=most, labels=self.lesson.labels, problem=kind)
        logits = np.empty((len(examples), len(order)), dtype=np.float32)
        for place, found in answers(
            model, examples, self.lesson.task, self.config.batch_size, self.progress, "ask the teacher"
        ):
            logits[place] = found["logits"][order]
        return logits

    def _callbacks(self) -> list[Any]:
        stop = [Patience(self.config.patience)] if self.config.patience else []
        board = self.tensorboard and self.processes.is_first
        return [*stop, *([Board(self.run.tensorboard)] if board else [])]

    def _judge(self, model: Any, examples: ExampleSet, stage: str) -> _Judged:
        """A model's answers to the held-out examples, each given by one process; the Trainer's own copy would answer
        under autocast."""
        mine = range(self.processes.rank, len(examples), self.processes.count)
        metric, single = self.lesson.metric, self.lesson.problem is Problem.SINGLE_LABEL
        truth = examples.truth or ()
        found: dict[int, tuple[Floats, NDArray[np.float32] | None]] = {}
        for place, outputs in answers(
            model, examples, self.lesson.task, self.config.batch_size, self.progress, stage, mine
        ):
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
        if self.config.lora:
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
