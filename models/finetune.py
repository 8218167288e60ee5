"""Fine-tune a text classifier with transformers' Trainer, resumable and recorded."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from artifact.examples import Examples, label_indices, write_csv
from artifact.identity import checkpoint_sha256
from artifact.progress import Progress, silent
from artifact.records import (
    cannot_write,
    fingerprint,
    read_if_present,
    replacing,
    sha256_files,
    write_bytes,
    write_json,
)
from artifact.run_folder import RunFolder, claim_output
from errors import UserError
from models.checkpoint import load_model, quiet
from models.scores import scores
from models.split import Split, split
from models.training import (
    SCHEMA_VERSION,
    Device,
    FinetuneConfig,
    Optimizer,
    Schedule,
    TrainingPrecision,
    TrainingRecord,
)
from models.watcher import EpochOrder, Turn, Watcher, always, at_once

SCHEDULES = {
    Schedule.LINEAR: "linear",
    Schedule.COSINE: "cosine",
    Schedule.CONSTANT: "constant_with_warmup",
}
OPTIMIZERS = {Optimizer.ADAMW: "adamw_torch_fused", Optimizer.SGD: "sgd", Optimizer.ADAFACTOR: "adafactor"}

LAST_LOSSES = 10
"""Steps whose mean is the final loss."""

BASE_SUFFIXES = (".json", ".safetensors", ".txt", ".model")
"""Files of a base model that decide what it answers."""


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
) -> tuple[TrainingRecord, bool]:
    """Fine-tune `base_model` (a folder or a Hub id) and write `data/`, `checkpoint/` and `training.json` to `out`.

    Returns the record and whether it was made now (`False`: the same training was already there). An interrupted run
    goes on from its last saved step. `labels` names the classes in the sorted order of the labels in the data. `turn`
    is called before each step and may wait. Raises `UserError` for bad data, a base model that cannot be loaded, a
    folder that holds another training, a loss that is no number, or when memory runs out.
    """
    config = config or FinetuneConfig()
    run = claim_output(out)
    parts, names = _name_labels(split(data, evaluation, held_out=config.held_out, seed=config.seed), labels)
    base_sha256 = _base_sha256(base_model)
    mark = fingerprint(
        {
            "base": base_sha256,
            "config": msgspec.to_builtins(config),
            "train": parts.train.sha256,
            "evaluation": parts.evaluation.sha256,
            "labels": names,
        }
    )
    earlier = read_if_present(run.training, TrainingRecord)
    if earlier is not None and earlier.fingerprint == mark and _intact(run, earlier):
        return earlier, False
    job = _Job(base_model, base_sha256, parts, names, config, run, mark, progress, turn)
    if run.training.is_file() or (run.own_checkpoint.exists() and not job.state.is_dir()):
        if not overwrite:
            raise UserError(
                f"{run.directory} holds another training (other data, model or settings), or a damaged one",
                "choose another --out, or add --overwrite to replace it",
            )
        run.training.unlink(missing_ok=True)  # so that a kill never leaves an old model beside new data
        shutil.rmtree(run.own_checkpoint, ignore_errors=True)
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


def _base_sha256(base_model: str) -> str:
    """Identity of the base model: a hash of a local folder's files, or the Hub id itself."""
    folder = Path(base_model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} has no config.json, so it is not a model", "give a folder written by save_pretrained"
            )
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"{folder} has no safetensors weights", "save it with model.save_pretrained(folder)")
        return sha256_files(path for path in folder.iterdir() if path.suffix in BASE_SUFFIXES)
    if base_model.startswith((".", "/", "~")) or base_model.count("/") > 1:
        raise UserError(f"{base_model} does not exist", "give a folder written by save_pretrained, or a Hub id")
    return base_model


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

    @property
    def state(self) -> Path:
        """Where the Trainer saves its steps; another training, device, precision or version never resumes from it."""
        device = self._device()
        how = {"training": self.mark, "device": device, "precision": self._precision(device), "versions": _versions()}
        return self.run.directory / f"training-state-{fingerprint(how)[:12]}"

    def train(self) -> TrainingRecord:
        device = self._device()
        precision = self._precision(device)
        tokenizer, model = self._load()
        tokenizer.model_max_length = min(self.config.max_length_tokens, tokenizer.model_max_length)
        train, truncated = _encode(tokenizer, self.parts.train, self.labels)
        watch = Watcher(
            self.progress,
            self.config.batch_size * self.config.accumulate,
            self.turn,
            torch.cuda.synchronize if device is Device.CUDA else at_once,
        )
        with quiet(), self._enough_memory():
            trainer = _Trainer(
                watch,
                model=model,
                args=self._arguments(device, precision, len(train)),
                train_dataset=train,
                data_collator=DataCollatorWithPadding(tokenizer),
                processing_class=tokenizer,
                compute_loss_func=self._loss(device),
                callbacks=[watch, EpochOrder()],
            )
            trainer.remove_callback(PrinterCallback)
            outcome = trainer.train(resume_from_checkpoint=_last_complete(self.state))
            self._save(trainer.model, tokenizer)
            logits, truth = self._answers(load_model(self.run.own_checkpoint).to(device), tokenizer)
        found = scores(truth, logits.argmax(axis=1).tolist(), self.labels)
        self._keep(watch.losses, logits, truth)
        record = TrainingRecord(
            schema_version=SCHEMA_VERSION,
            fingerprint=self.mark,
            base_model=f"{Path(self.base_model).name} ({self.base_sha256[:12]})",
            config=self.config,
            precision=precision,
            device=torch.cuda.get_device_name(0) if device is Device.CUDA else "cpu",
            labels=self.labels,
            data_sha256={"train": self.parts.train.sha256, "evaluation": self.parts.evaluation.sha256},
            examples={"train": len(self.parts.train), "evaluation": len(self.parts.evaluation)},
            class_counts=dict(Counter(self.parts.train.labels)),
            duplicates_removed=self.parts.duplicates_removed,
            leaked_removed=self.parts.leaked_removed,
            truncated_fraction=truncated,
            steps=int(outcome.global_step),
            seconds_s=watch.seconds_s,
            samples_per_s=len(train) * self.config.epochs / watch.seconds_s,
            final_loss=fmean(watch.losses[-LAST_LOSSES:]),
            accuracy_fraction=found.accuracy.value,
            scores=found,
            checkpoint_sha256=checkpoint_sha256(self.run.own_checkpoint),
            versions=_versions(),
        )
        write_json(self.run.training, record)
        for state in self.run.directory.glob("training-state-*"):
            shutil.rmtree(state, ignore_errors=True)
        return record

    def _device(self) -> Device:
        if self.config.device is Device.CUDA and not torch.cuda.is_available():
            raise UserError("--device cuda was asked for, but torch finds no GPU", "see: steelyard doctor")
        if self.config.device is Device.AUTO:
            return Device.CUDA if torch.cuda.is_available() else Device.CPU
        return self.config.device

    def _precision(self, device: Device) -> TrainingPrecision:
        if self.config.precision is TrainingPrecision.FP16 and device is Device.CPU:
            raise UserError("--precision fp16 trains on a GPU only", "use bf16 or fp32 on a CPU")
        if self.config.precision is not TrainingPrecision.AUTO:
            return self.config.precision
        if device == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = torch.cpu.get_capabilities()
            fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return TrainingPrecision.BF16 if fast else TrainingPrecision.FP32

    def _load(self) -> tuple[Any, Any]:
        names = dict(enumerate(self.labels))
        changes = self._dropouts()
        torch.manual_seed(self.config.seed)  # the new head's weights
        with quiet():
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.base_model)
                model, loaded = AutoModelForSequenceClassification.from_pretrained(
                    self.base_model,
                    output_loading_info=True,
                    dtype=torch.float32,
                    use_safetensors=True,
                    num_labels=len(names),
                    problem_type="single_label_classification",
                    id2label=names,
                    label2id={name: index for index, name in names.items()},
                    ignore_mismatched_sizes=True,
                    **changes,
                )
            except (OSError, ValueError, SafetensorError) as error:
                first = str(error).strip().splitlines()[0]
                raise UserError(
                    f"the base model {self.base_model} cannot be loaded: {first}",
                    "without network give a local folder; 'steelyard demo' uses a model that a package carries",
                ) from error
        if len(loaded["missing_keys"]) > len(model.state_dict()) / 2:  # a new head lacks two or three
            raise UserError(
                f"the weights of {self.base_model} are not those of the {model.config.model_type} in its config.json",
                "give the folder as save_pretrained wrote it",
            )
        if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # transformers invents one where there is none
            raise UserError(f"{self.base_model} has no tokenizer", "save the tokenizer beside the weights")
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {self.base_model} has no fast version and cannot be served without transformers",
                "choose a base model that has a tokenizer.json",
            )
        return tokenizer, model

    def _dropouts(self) -> dict[str, float]:
        """Every dropout that the base model's configuration names, as it shall be."""
        if self.config.dropout is None:
            return {}
        with quiet():
            names = AutoConfig.from_pretrained(self.base_model).to_dict()
        found = [name for name in names if "dropout" in name or name.endswith("pdrop")]
        return dict.fromkeys(found, self.config.dropout)

    def _arguments(self, device: Device, precision: TrainingPrecision, examples: int) -> Any:
        steps = -(-examples // (self.config.batch_size * self.config.accumulate)) * self.config.epochs
        return TrainingArguments(
            output_dir=str(self.state),
            num_train_epochs=self.config.epochs,
            per_device_train_batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            warmup_steps=self.config.warmup_fraction if self.config.warmup_fraction < 1 else 0,
            lr_scheduler_type=SCHEDULES[self.config.schedule],
            optim=OPTIMIZERS[self.config.optimizer],
            max_grad_norm=self.config.clip_norm,
            gradient_accumulation_steps=self.config.accumulate,
            activation_checkpointing=self.config.checkpointing,
            torch_compile=self.config.compile,
            train_sampling_strategy="group_by_length",
            bf16=precision is TrainingPrecision.BF16,
            fp16=precision is TrainingPrecision.FP16,
            use_cpu=device == "cpu",
            seed=self.config.seed,
            save_steps=max(10, steps // 5),
            save_total_limit=2,
            logging_strategy="no",
            logging_nan_inf_filter=False,  # a loss that is no number ends the training
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device == "cuda",
        )

    def _loss(self, device: Device) -> Callable[..., torch.Tensor] | None:
        """The loss where it is not the model's own: smoothed labels, or labels weighed by how rare they are."""
        if not self.config.balance and not self.config.label_smoothing:
            return None
        weights = None
        if self.config.balance:
            counts = Counter(self.parts.train.labels)
            even = len(self.parts.train) / len(self.labels)
            weights = torch.tensor([even / counts[name] for name in self.labels], device=device.value)

        def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            total = torch.nn.functional.cross_entropy(
                outputs["logits"], labels, weights, reduction="sum", label_smoothing=self.config.label_smoothing
            )
            return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

        return loss

    def _answers(self, model: Any, tokenizer: Any) -> tuple[NDArray[np.float32], list[int]]:
        """Logits of the saved model in fp32 for the held-out examples, shape (examples, labels), and what is right.

        In batches of similar length. The Trainer's own copy would answer under autocast.
        """
        examples, _ = _encode(tokenizer, self.parts.evaluation, self.labels)
        truth = [example.pop("label") for example in examples]
        order = sorted(range(len(examples)), key=lambda row: len(examples[row]["input_ids"]))
        logits = np.empty((len(examples), len(self.labels)), dtype=np.float32)
        for start in range(0, len(order), self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            batch = tokenizer.pad([examples[row] for row in rows], return_tensors="pt")
            with torch.inference_mode():
                logits[rows] = model(**batch.to(model.device)).logits.float().cpu().numpy()
            self.progress("evaluate", start + len(rows), len(order))
        return logits, truth

    def _keep(self, losses: Sequence[float], logits: NDArray[np.float32], truth: Sequence[int]) -> None:
        """Write the curve and the answers, from which everything else can be worked out again."""
        lines = ["step,loss", *(f"{step},{loss:.6g}" for step, loss in enumerate(losses, start=1)), ""]
        write_bytes(self.run.losses, "\n".join(lines).encode())
        with replacing(self.run.predictions) as path, path.open("wb") as file:
            np.savez(file, logits=logits, truth=np.asarray(truth, dtype=np.int64))

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Say in one sentence that memory ran out, and what would need less."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            half = max(1, self.config.batch_size // 2)
            raise UserError(
                f"memory ran out at {self.config.batch_size} examples of up to {self.config.max_length_tokens} tokens",
                f"use --batch-size {half} --accumulate {2 * self.config.accumulate}, which learns the same, or "
                "--checkpointing, or a smaller --max-length; saved steps are kept",
            ) from error

    def _save(self, model: Any, tokenizer: Any) -> None:
        """Write the checkpoint beside its final place, then put it there."""
        folder = self.run.own_checkpoint
        part = folder.with_name(".checkpoint.part")
        try:
            with _writing(folder):
                shutil.rmtree(part, ignore_errors=True)
                model.to("cpu").save_pretrained(part)
                tokenizer.save_pretrained(part)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _encode(tokenizer: Any, examples: Examples, labels: tuple[str, ...]) -> tuple[list[dict[str, Any]], float]:
    """Token ids with the label of each example, and the fraction of texts that were cut to the tokenizer's limit."""
    indices = label_indices(examples, labels)
    limit = tokenizer.model_max_length
    encoded = tokenizer(list(examples.texts), truncation=True)
    lengths = [len(ids) for ids in tokenizer(list(examples.texts), truncation=False, verbose=False)["input_ids"]]
    rows = [
        {**{name: values[row] for name, values in encoded.items()}, "label": label} for row, label in enumerate(indices)
    ]
    return rows, sum(length > limit for length in lengths) / len(lengths)


class _Trainer(Trainer):  # type: ignore[misc]  # transformers' class is untyped
    """A Trainer that shows `watch` every loss, and tells a failed save in one sentence."""

    def __init__(self, watch: Watcher, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._watch = watch

    def training_step(self, *arguments: Any, **more: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*arguments, **more)
        self._watch.learnt(float(loss), self.state.global_step)
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with _writing(Path(self.args.output_dir)):
            super()._save_checkpoint(model, trial)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise `UserError` for a failed write, whichever library made it; torch's own error does not say why."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
    except SafetensorError as error:
        raise cannot_write(path, OSError(str(error))) from error
    except RuntimeError as error:
        raise cannot_write(path, OSError("torch could not finish the file, as on a full disk")) from error


def _last_complete(state: Path) -> str | None:
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
