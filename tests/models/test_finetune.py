import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from artifact.task import Task
from artifact.tokenizer import read_limits
from errors import UserError
from models.finetune import finetune
from models.job import Job
from models.rows import TaskRows, read_task_rows
from models.trainer import _is_json, arguments, choose_precision, enough_memory
from models.training import (
    Device,
    FinetuneConfig,
    Optimizer,
    Schedule,
    Teacher,
    TrainingPrecision,
    TrainingRecord,
)
from models.turns import Steps
from tests.conftest import Steelyard, small_files
from tests.models.conftest import CONFIG, STEPS, Make, Trained
from tests.test_cli import fails

FLAGS = ["--batch-size=8", "--learning-rate=5e-3", "--held-out=40", "--precision=fp32", "--device=cpu"]
LONGER = msgspec.structs.replace(CONFIG, epochs=12)
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def cut(record: TrainingRecord) -> float:
    """The fraction of texts that were cut."""
    assert record.data.lengths is not None
    return record.data.lengths.truncated_fraction


class Interruption:
    """A progress that interrupts the training like Ctrl-C after one of its steps."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.seen: list[int] = []

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "fine-tune":
            self.seen.append(done)
            if done == self.step:
                raise KeyboardInterrupt

    def interrupt(self, *_: object) -> None:
        raise KeyboardInterrupt


def _read(path: Path) -> TaskRows:
    return read_task_rows(path, Task.TEXT_CLASSIFICATION)


def _states(out: Path) -> list[Path]:
    return list(out.glob("training-state-*"))


def _weights(out: Path) -> bytes:
    return (out / "checkpoint" / "model.safetensors").read_bytes()


def _sha256(examples: TaskRows) -> str:
    return hashlib.sha256(json.dumps([list(examples.texts), list(examples.labels)]).encode()).hexdigest()


@pytest.fixture(scope="module")
def longer(tiny_checkpoint: Path, separable: TaskRows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training of 300 steps, one saved every 60: long enough to learn everything, and to be killed in."""
    out = tmp_path_factory.mktemp("longer") / "run"
    return Trained(out, finetune(str(tiny_checkpoint), separable, out, config=LONGER)[0])


def test_a_separable_set_is_learnt(longer: Trained) -> None:
    assert longer.record.value.value >= 0.95
    assert longer.record.final_loss < 0.3


def test_recorded_accuracy_is_that_of_the_saved_checkpoint(trained: Trained) -> None:
    folder = trained.out / "checkpoint"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    held_out = _read(trained.out / "data" / "evaluation.csv")
    with torch.inference_mode():
        best = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in held_out.texts]
    right = [model.config.id2label[index] == label for index, label in zip(best, held_out.labels, strict=True)]
    assert trained.record.value.value == sum(right) / len(right)


def test_training_is_recorded(trained: Trained) -> None:
    record = trained.record
    train, held_out = (_read(trained.out / "data" / f"{name}.csv") for name in ("train", "evaluation"))
    assert record.data_sha256 == {"train": _sha256(train), "evaluation": _sha256(held_out)}
    assert record.data.examples == {"train": 200, "evaluation": 40}
    assert record.labels == ("bad", "good")
    assert record.data.labels == Counter(train.labels) == {"bad": 100, "good": 100}
    assert record.steps == 4 * 200 / 8 == STEPS
    assert record.samples_per_s == pytest.approx(800 / record.seconds_s)
    assert (record.data.duplicates_removed, record.data.leaked_removed, cut(record)) == (0, 0, 0)
    assert (record.precision, record.device) == (TrainingPrecision.FP32, "cpu")
    assert record.config == CONFIG
    assert record.versions["torch"] == torch.__version__
    assert json.loads((trained.out / "training.json").read_text()) == json.loads(msgspec.json.encode(record))


def test_state_is_removed_at_the_end(trained: Trained) -> None:
    assert sorted(path.name for path in trained.out.iterdir()) == [
        *("checkpoint", "data", "losses.csv", "predictions.npz", "run.json", "training.json")
    ]


def test_the_split_is_written_with_the_final_labels_and_numbers_sort_by_size(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    """Labels 2 and 10: as text, 10 would come first."""
    numbered = separable.relabel({"bad": "2", "good": "10"}.__getitem__)
    config = msgspec.structs.replace(CONFIG, epochs=1)
    finetune(str(tiny_checkpoint), numbered, tmp_path / "run", labels=("poor", "fine"), config=config)
    held_out = _read(tmp_path / "run" / "data" / "evaluation.csv")
    good = {text for text, label in zip(separable.texts, separable.labels, strict=True) if label == "good"}
    assert {text for text, label in zip(held_out.texts, held_out.labels, strict=True) if label == "fine"} <= good
    assert set(held_out.labels) == {"poor", "fine"}


def test_two_labels_of_one_name_are_refused(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names 'same' twice"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", labels=("same", "same"), config=CONFIG)


def test_texts_are_cut_alike_in_training_and_wherever_it_is_served(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=1, max_length_tokens=6)
    finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    assert read_limits(tmp_path / "run" / "checkpoint").max_length_tokens == 6


def test_labels_are_named_in_the_order_of_the_data(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=1, max_length_tokens=6)
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", labels=("NO", "YES"), config=config)
    saved = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert record.labels == ("NO", "YES")
    assert saved["id2label"] == {"0": "NO", "1": "YES"}
    train = _read(tmp_path / "run" / "data" / "train.csv").texts
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    longer = sum(len(tokenizer(text)["input_ids"]) > 6 for text in train)
    assert 0 < cut(record) == longer / len(train) < 1


def test_the_same_training_is_reused_and_nothing_loaded_for_it(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "models.job", None)
    before = (trained.out / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    record, made = finetune(str(tiny_checkpoint), separable, trained.out, config=CONFIG)
    assert (record, made) == (trained.record, False)
    assert (trained.out / "checkpoint" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_not_reused(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path, damage: str
) -> None:
    out = shutil.copytree(trained.out, tmp_path / "run")
    if damage == "missing":
        shutil.rmtree(out / "checkpoint")
    else:
        (out / "checkpoint" / "model.safetensors").write_bytes(_weights(out)[:1000])
    with pytest.raises(UserError, match="holds another training"):
        finetune(str(tiny_checkpoint), separable, out, config=CONFIG)
    _, made = finetune(str(tiny_checkpoint), separable, out, config=CONFIG, overwrite=True)
    assert made
    assert _weights(out) == _weights(trained.out)


def test_another_training_needs_overwrite(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path
) -> None:
    out = shutil.copytree(trained.out, tmp_path / "run")
    fewer = separable.select(range(10, len(separable)))
    shorter = msgspec.structs.replace(CONFIG, epochs=1)
    for data, config in ((fewer, CONFIG), (separable, shorter)):
        with pytest.raises(UserError, match="holds another training") as raised:
            finetune(str(tiny_checkpoint), data, out, config=config)
        assert "--overwrite" in raised.value.hint
    assert _weights(out) == _weights(trained.out)
    record, made = finetune(str(tiny_checkpoint), separable, out, config=shorter, overwrite=True)
    assert made
    assert record.steps == 25
    assert _weights(out) != _weights(trained.out)


def test_an_overwrite_that_is_interrupted_leaves_no_old_model_beside_new_data(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path
) -> None:
    out = shutil.copytree(trained.out, tmp_path / "run")
    other = msgspec.structs.replace(CONFIG, seed=5)
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, out, config=other, overwrite=True, progress=Interruption(2))
    assert not (out / "training.json").exists()
    assert not (out / "checkpoint").exists()


def test_weights_of_another_architecture_are_refused(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    mixed = shutil.copytree(tiny_checkpoint, tmp_path / "mixed")
    config = json.loads((mixed / "config.json").read_text())
    config.update(model_type="electra", architectures=["ElectraForSequenceClassification"])
    (mixed / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not those of the electra"):
        finetune(str(mixed), separable, tmp_path / "run", config=CONFIG)


@pytest.mark.parametrize(
    ("step", "resumed"),
    [(19, 0), (45, 40), *(pytest.param(*item, marks=pytest.mark.exhaustive) for item in ((77, 60), (100, 80)))],
)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path, step: int, resumed: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, out, config=CONFIG, progress=Interruption(step))
    assert not (out / "training.json").exists()
    rest = Interruption(-1)
    record, made = finetune(str(tiny_checkpoint), separable, out, config=CONFIG, progress=rest)
    assert made
    assert rest.seen == list(range(resumed, STEPS + 1))
    assert _weights(out) == _weights(trained.out)
    same = ("steps", "final_loss", "scores", "checkpoint_sha256")
    assert [getattr(record, name) for name in same] == [getattr(trained.record, name) for name in same]
    assert not _states(out)


def test_a_training_that_resumes_at_the_end_of_an_epoch_ends_the_same(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=5)  # 125 steps, one saved every 25: at each epoch's end
    whole, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config, progress=Interruption(55))
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    assert record.checkpoint_sha256 == whole.checkpoint_sha256


def test_a_training_killed_after_its_last_step_is_only_saved_again(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Job, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(str(tiny_checkpoint), separable, out, config=CONFIG)
    rest = Interruption(-1)
    record, _ = finetune(str(tiny_checkpoint), separable, out, config=CONFIG, progress=rest)
    assert rest.seen == [STEPS]
    assert record.checkpoint_sha256 == trained.record.checkpoint_sha256
    assert record.final_loss == trained.record.final_loss
    assert record.seconds_s > 0


@pytest.mark.parametrize("left", [None, b"", b'{"epoch": 1.6, "log_his'])
def test_a_step_that_was_not_written_to_its_end_is_not_resumed_from(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, left: bytes | None
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, out, config=CONFIG, progress=Interruption(45))
    newest = _states(out)[0] / "checkpoint-40" / "trainer_state.json"
    newest.unlink()
    if left is not None:
        newest.write_bytes(left)
    rest = Interruption(30)
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, out, config=CONFIG, progress=rest)
    assert rest.seen[0] == 20


@pytest.mark.slow
def test_seconds_of_interrupted_attempts_count(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    def slow(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 15:
            time.sleep(2)
        if done == 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG, progress=slow)
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG)
    assert record.seconds_s > 2


def test_a_base_model_for_another_kind_of_problem_learns_single_labels(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    finetune(str(base), separable, tmp_path / "run", config=msgspec.structs.replace(CONFIG, epochs=1))
    saved = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert saved["problem_type"] == "single_label_classification"


def test_the_loss_of_every_step_is_kept_over_an_interruption(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG, progress=Interruption(45))
    finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG)
    curve = (trained.out / "losses.csv").read_text()
    assert (tmp_path / "run" / "losses.csv").read_text() == curve
    header, *lines = curve.splitlines()
    assert header == "step,loss"
    assert [int(line.partition(",")[0]) for line in lines] == list(range(1, STEPS + 1))
    losses = [float(line.partition(",")[2]) for line in lines]
    assert trained.record.final_loss == pytest.approx(np.mean(losses[-10:]), rel=1e-5)
    assert losses[0] > 2 * trained.record.final_loss


def test_the_answers_are_kept_beside_what_is_right(trained: Trained) -> None:
    folder = trained.out / "checkpoint"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    held_out = _read(trained.out / "data" / "evaluation.csv")
    with np.load(trained.out / "predictions.npz") as kept, torch.inference_mode():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in held_out.texts]
        np.testing.assert_allclose(kept["logits"], expected, atol=1e-5)
        assert [trained.record.labels[index] for index in kept["truth"]] == list(held_out.labels)


@pytest.mark.parametrize("damage", ["inf", "nan"])
def test_a_loss_that_is_no_number_ends_the_training_at_its_step(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, damage: str
) -> None:
    base = Path(shutil.copytree(tiny_checkpoint, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    weights["bert.embeddings.LayerNorm.bias"][0] = float(damage)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"the loss became nan at step 1, so nothing") as raised:
        finetune(str(base), separable, tmp_path / "run", config=CONFIG)
    assert "--learning-rate" in raised.value.hint


def test_too_high_a_learning_rate_is_named_with_its_step(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, learning_rate=1e30, optimizer=Optimizer.SGD, clip_norm=0)
    with pytest.raises(UserError, match=r"the loss became (nan|inf) at step \d+"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["host", "device", "torch"],
)
def test_memory_that_runs_out_is_one_sentence_with_what_needs_less(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    calls = []

    def step(*arguments: object, **more: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 22:
            raise error
        return real(*arguments, **more)

    real: Callable[..., torch.Tensor] = transformers.Trainer.training_step
    with monkeypatch.context() as patch:
        patch.setattr(transformers.Trainer, "training_step", step)
        with pytest.raises(UserError, match="memory ran out at 8 examples") as raised:
            finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG)
    assert "--batch-size 4 --accumulate 2" in raised.value.hint
    odd = msgspec.structs.replace(CONFIG, batch_size=1)
    with pytest.raises(UserError) as raised, enough_memory(odd):
        raise error
    assert "--batch-size" not in raised.value.hint
    rest = Interruption(20)
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG, progress=rest)
    assert rest.seen == [20]


def test_an_error_that_is_not_about_memory_is_not_called_so(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: object, **more: object) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(transformers.Trainer, "training_step", step)
    with pytest.raises(RuntimeError, match="a bug"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG)


def test_a_step_of_several_batches_learns_what_one_of_all_their_examples_does(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    """The order of examples depends on the batch size, so a step is all of them: 200 at once, or 4 batches of 50."""
    config = msgspec.structs.replace(CONFIG, dropout=0.0, optimizer=Optimizer.SGD, learning_rate=0.1, clip_norm=0)
    shapes = {"whole": (200, 1), "parts": (50, 4)}
    for name, (batch_size, accumulate) in shapes.items():
        changed = msgspec.structs.replace(config, batch_size=batch_size, accumulate=accumulate)
        record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / name, config=changed)
        assert record.steps == 4
    curves, weights = (
        [np.loadtxt(tmp_path / name / "losses.csv", delimiter=",", skiprows=1)[:, 1] for name in shapes],
        [load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in shapes],
    )
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5)


def test_activations_that_are_computed_twice_give_the_same_weights(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, checkpointing=True)
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    assert record.checkpoint_sha256 == trained.record.checkpoint_sha256


def _arguments(config: FinetuneConfig, tmp_path: Path) -> Any:
    return arguments(config, Device.CPU, TrainingPrecision.FP32, tmp_path, 200, logged=False)


@pytest.mark.parametrize(
    ("change", "argument", "expected"),
    [
        ({"optimizer": Optimizer.ADAFACTOR}, "optim", "adafactor"),
        ({"schedule": Schedule.COSINE}, "lr_scheduler_type", "cosine"),
        ({"weight_decay": 0.3}, "weight_decay", 0.3),
        ({"warmup_fraction": 0.5}, "warmup_steps", 0.5),
        ({"warmup_fraction": 1.0}, "warmup_steps", 100),
        ({"clip_norm": 0.1}, "max_grad_norm", 0.1),
        ({"accumulate": 4}, "gradient_accumulation_steps", 4),
        ({"checkpointing": True}, "activation_checkpointing", True),
        ({"compile": True}, "torch_compile", True),
    ],
)
def test_what_is_asked_for_reaches_the_trainer(
    change: dict[str, Any], argument: str, expected: object, tmp_path: Path
) -> None:
    usual, changed = (_arguments(config, tmp_path) for config in (CONFIG, msgspec.structs.replace(CONFIG, **change)))
    assert getattr(usual, argument) != expected
    assert getattr(changed, argument) == expected


@pytest.mark.parametrize("optimizer", [Optimizer.SGD, Optimizer.ADAFACTOR])
def test_other_optimizers_learn(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, optimizer: Optimizer
) -> None:
    rate = 0.1 if optimizer is Optimizer.SGD else 5e-3
    config = msgspec.structs.replace(CONFIG, optimizer=optimizer, learning_rate=rate, dropout=0.0)
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    losses = np.loadtxt(tmp_path / "run" / "losses.csv", delimiter=",", skiprows=1)[:, 1]
    assert record.final_loss < losses[:10].mean() / 2


def test_dropout_is_that_of_every_layer(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, dropout=0.25, epochs=1)
    finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "checkpoint")
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}


def test_a_student_is_taught_and_says_by_whom(
    tiny_checkpoint: Path, separable: TaskRows, longer: Trained, tmp_path: Path
) -> None:
    """It comes closer to the teacher's answers than one that learns alone."""
    config = msgspec.structs.replace(CONFIG, layers=1)
    teacher = Teacher(checkpoint=str(longer.out / "checkpoint"), share=0.9)
    taught, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "taught", config=config, teacher=teacher)
    finetune(str(tiny_checkpoint), separable, tmp_path / "alone", config=config)
    assert taught.teacher == teacher
    saved = json.loads((tmp_path / "taught" / "checkpoint" / "config.json").read_text())
    assert saved["num_hidden_layers"] == 1
    with np.load(longer.out / "predictions.npz") as answers:
        wanted = softmax(answers["logits"] / 2, axis=1)
    distances = []
    for name in ("taught", "alone"):
        with np.load(tmp_path / name / "predictions.npz") as answers:
            distances.append(float(np.abs(softmax(answers["logits"] / 2, axis=1) - wanted).mean()))
    assert distances[0] < distances[1]


def test_a_teacher_of_other_labels_is_refused(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    teacher = Teacher(checkpoint=str(tiny_checkpoint))
    with pytest.raises(UserError, match="answers negative, positive, and the data has: bad, good"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG, teacher=teacher)


def test_more_layers_than_there_are_cannot_be_kept(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, layers=3)
    with pytest.raises(UserError, match=r"--layers 3, and .* has 2"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)


def test_training_ends_when_validation_no_longer_improves_and_keeps_the_best(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=40, patience=2)
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    assert record.data.examples == {"train": 180, "evaluation": 40, "validation": 20}
    assert record.steps < 40 * 23
    assert record.best is not None
    assert record.best.step < record.steps
    assert (record.best.metric, record.best.value >= 0.9) == ("accuracy", True)
    saved = _read(tmp_path / "run" / "data" / "train.csv")
    assert len(saved) == 200  # what validates is a part of it


def test_an_interrupted_training_that_validates_ends_as_an_uninterrupted_one(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a validation that was no better, and once more while it is being saved after the last of them."""
    config = msgspec.structs.replace(CONFIG, epochs=20, patience=2)
    whole, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "whole", config=config)
    assert whole.best is not None
    last = whole.steps
    assert whole.best.step < last < 20 * 23
    every = (last - whole.best.step) // 2
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(str(tiny_checkpoint), separable, out, config=config, progress=Interruption(last - every + 2))
    with monkeypatch.context() as patch:
        patch.setattr(Job, "_save", Interruption(0).interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune(str(tiny_checkpoint), separable, out, config=config)
    record, _ = finetune(str(tiny_checkpoint), separable, out, config=config)
    assert (record.best, record.steps, record.checkpoint_sha256) == (whole.best, last, whole.checkpoint_sha256)


def test_a_label_that_is_too_rare_to_validate_is_named(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    bad = [row for row, label in enumerate(separable.labels) if label == "bad"]
    good = [row for row, label in enumerate(separable.labels) if label == "good"]
    few = separable.select([*bad[:100], *good[:12]])
    config = msgspec.structs.replace(CONFIG, patience=1, held_out=10)
    with pytest.raises(UserError, match="'good' has fewer than 20"):
        finetune(str(tiny_checkpoint), few, tmp_path / "run", config=config)


def test_weights_that_the_last_step_ruined_are_not_saved(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(trainer: Any, *arguments: object, **more: object) -> torch.Tensor:
        loss = real(trainer, *arguments, **more)
        if trainer.state.global_step == STEPS - 1:
            next(trainer.model.parameters()).grad[0] = float("nan")
        return loss

    real: Callable[..., torch.Tensor] = transformers.Trainer.training_step
    monkeypatch.setattr(transformers.Trainer, "training_step", step)
    with pytest.raises(UserError, match="the weights are no numbers after the last step"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG)
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_tensorboard_reads_every_step_once_after_an_interruption(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    run = partial(finetune, str(tiny_checkpoint), separable, tmp_path / "run", config=CONFIG, tensorboard=True)
    with pytest.raises(KeyboardInterrupt):
        run(progress=Interruption(45))
    run()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/learning_rate", "train/grad_norm"}
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, STEPS + 1))
    expected = np.loadtxt(tmp_path / "run" / "losses.csv", delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_allclose([event.value for event in losses], expected, atol=1e-3)
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    assert max(rates) == pytest.approx(CONFIG.learning_rate, rel=0.01)
    assert rates[-1] < CONFIG.learning_rate / 20


def test_fp16_is_refused_on_a_cpu(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, precision=TrainingPrecision.FP16)
    with pytest.raises(UserError, match="fp16 trains on a GPU only") as raised:
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)
    assert "bf16" in raised.value.hint


def test_waiting_for_a_turn_is_no_part_of_the_seconds(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path
) -> None:
    seen: list[Steps] = []

    def turn(steps: Steps) -> None:
        seen.append(steps)
        if steps.done == 3:
            time.sleep(5)

    config = msgspec.structs.replace(CONFIG, epochs=1)
    record, _ = finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config, turn=turn)
    assert record.seconds_s < 5
    assert [steps.done for steps in seen] == list(range(26))
    assert {steps.total for steps in seen} == {25}
    assert [steps.over for steps in seen] == [False] * 25 + [True]
    assert {steps.training for steps in seen} == {record.fingerprint}
    assert seen[-1].seconds_s == record.seconds_s


def _change(folder: Path, name: str) -> None:
    if name == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif name == "truncated":
        (folder / "model.safetensors").write_bytes(b"\x00" * 20)
    else:
        for path in folder.glob(name):
            path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.json", "has no config.json, so it is not a model"),
        ("pickle", "has no safetensors weights"),
        ("truncated", "cannot be loaded"),
        ("tokenizer*", "has no tokenizer"),
    ],
)
def test_a_base_model_that_lacks_something_is_refused(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, change: str, message: str
) -> None:
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    _change(base, change)
    with pytest.raises(UserError) as raised:
        finetune(str(base), separable, tmp_path / "run", config=CONFIG)
    assert message in raised.value.message
    assert str(base) in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("base", ["./nowhere", "/nowhere/model", "~/model", "a/b/c"])
def test_a_base_folder_that_does_not_exist_is_named(separable: TaskRows, tmp_path: Path, base: str) -> None:
    with pytest.raises(UserError, match="does not exist") as raised:
        finetune(base, separable, tmp_path / "run", config=CONFIG)
    assert base in raised.value.message


def test_a_hub_id_without_network_names_the_ways_without(separable: TaskRows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prajjwal1/bert-tiny cannot be loaded") as raised:
        finetune("prajjwal1/bert-tiny", separable, tmp_path / "run", config=CONFIG)
    assert "local folder" in raised.value.hint
    assert "steelyard demo" in raised.value.hint
    assert not (tmp_path / "run" / "training.json").exists()


def test_cuda_without_a_gpu_is_refused(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = msgspec.structs.replace(CONFIG, device=Device.CUDA)
    with pytest.raises(UserError, match="--device cuda was asked for, but torch finds no GPU"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", config=config)


def test_an_unknown_label_in_the_evaluation_file_is_named(
    tiny_checkpoint: Path, separable: TaskRows, examples: Make, tmp_path: Path
) -> None:
    held = examples(("fine", "good"), ("odd", "meh"), source="eval.csv")
    with pytest.raises(UserError, match=r"eval\.csv, row 2: unknown label 'meh'") as raised:
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", evaluation=held, config=CONFIG)
    assert "bad, good" in raised.value.hint


def test_too_many_label_names_are_refused(tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--labels names 3 labels, the data has 2: bad, good"):
        finetune(str(tiny_checkpoint), separable, tmp_path / "run", labels=("a", "b", "c"), config=CONFIG)


def test_an_output_folder_that_holds_something_else_is_left_alone(
    tiny_checkpoint: Path, separable: TaskRows, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        finetune(str(tiny_checkpoint), separable, tmp_path, config=CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, TrainingPrecision.BF16),
        ({"amx_bf16": True, "avx512_bf16": False}, TrainingPrecision.BF16),
        ({"bf16": True, "architecture": "aarch64"}, TrainingPrecision.BF16),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, TrainingPrecision.FP32),
        ({}, TrainingPrecision.FP32),
    ],
)
def test_bf16_is_chosen_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: TrainingPrecision
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(FinetuneConfig(), Device.CPU) is expected


def _command(tiny_checkpoint: Path, data: Path, out: Path, epochs: int) -> list[str]:
    steelyard = str(Path(sys.executable).parent / "steelyard")
    places = ["finetune", str(tiny_checkpoint), "--data", str(data), "--out", str(out), "--epochs", str(epochs)]
    return [steelyard, *places, *FLAGS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive)]
)
def test_a_killed_command_goes_on_and_ends_as_an_uninterrupted_one(
    tiny_checkpoint: Path,
    separable_csv: Path,
    separable: TaskRows,
    longer: Trained,
    tmp_path: Path,
    sent: signal.Signals,
    code: int,
) -> None:
    out = tmp_path / "run"
    command = _command(tiny_checkpoint, separable_csv, out, LONGER.epochs)
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell's children ignore it
    with subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as run:
        while not any(
            map(_is_json, out.glob("training-state-*/checkpoint-*/trainer_state.json"))
        ):  # written to its end
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(sent)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == code
    assert "Traceback" not in errors
    assert ("the same command goes on from there" in errors) == (sent is signal.SIGINT)
    assert not (out / "training.json").exists()
    rest = Interruption(-1)
    finetune(str(tiny_checkpoint), separable, out, config=LONGER, progress=rest)
    assert rest.seen[0] >= 60
    assert rest.seen[-1] == 300
    assert _weights(out) == _weights(longer.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit_bytes", [pytest.param(50_000, marks=pytest.mark.exhaustive), 150_000], ids=["weights", "optimizer"]
)
def test_a_full_disk_is_one_sentence(
    tiny_checkpoint: Path, separable_csv: Path, tmp_path: Path, limit_bytes: int
) -> None:
    done = subprocess.run(
        _command(tiny_checkpoint, separable_csv, tmp_path / "run", epochs=1),
        env=ONE_THREAD,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: cannot write {tmp_path / 'run'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_at_the_end_keeps_the_training(
    tiny_checkpoint: Path, separable: TaskRows, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    save = Job._save

    def save_on_a_full_disk(job: Job, model: object, tokenizer: object) -> None:
        with small_files(50_000):
            save(job, model, tokenizer)

    monkeypatch.setattr(Job, "_save", save_on_a_full_disk)
    with pytest.raises(UserError, match=r"cannot write .*/run/checkpoint: .*File too large"):
        finetune(str(tiny_checkpoint), separable, out, config=CONFIG)
    monkeypatch.undo()
    assert not (out / "checkpoint").exists()
    assert not (out / ".checkpoint.part").exists()
    finetune(str(tiny_checkpoint), separable, out, config=CONFIG)
    assert _weights(out) == _weights(trained.out)


def test_a_run_that_learnt_pairs_is_not_measured_by_halves(
    trained: Trained, separable_csv: Path, steelyard: Steelyard, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained.out, tmp_path / "run"))
    record = json.loads((run / "training.json").read_bytes())
    record["data"]["columns"] = {"text": "text", "pair": "text_pair"}
    (run / "training.json").write_text(json.dumps(record))
    done = steelyard("compare", run, "--data", separable_csv)
    fails(done, 2, "holds no second text", "--pair-column")
