"""How to fine-tune, and what `training.json` records of it (light: no torch)."""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from artifact.intervals import Estimate
from artifact.task import Task

SCHEMA_VERSION = 3


class Problem(StrEnum):
    """What there is to learn: one label, several, or a number for each example; a tag for each word; where the answer
    lies; the next token."""

    SINGLE_LABEL = "single-label"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    TAGS = "tags"
    SPAN = "span"
    NEXT_TOKEN = "next-token"  # noqa: S105  a token of text


class TrainingPrecision(StrEnum):
    """Arithmetic of the training steps; weights are always kept in fp32. `auto` is bf16 where the device has it; fp16
    scales the loss, and needs a GPU."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Device(StrEnum):
    """Where to train; `auto` is a GPU where torch finds one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How well a label is found, or labels on average."""

    precision: Estimate
    recall: Estimate
    f1: Estimate


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """How many examples of one label got an answer."""

    truth: str
    answer: str
    count: int


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """How a classifier did on held-out examples.

    `macro` is the mean over labels, `weighted` that by their frequency. `confusion` has every pair that occurs.
    `most_frequent` is the accuracy of always answering the commonest label.
    """

    accuracy: Estimate
    macro: Score
    weighted: Score
    labels: dict[str, Score]
    confusion: tuple[Confusion, ...]
    most_frequent: float


class Optimizer(StrEnum):
    """What changes the weights. PyTorch's fused kernels where it has them."""

    ADAMW = "adamw"
    SGD = "sgd"
    ADAFACTOR = "adafactor"


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"


class FinetuneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to fine-tune. `max_length_tokens` cuts longer texts, in training and wherever the checkpoint is served.

    A step learns from `batch_size` × `accumulate` examples. Gradients longer than `clip_norm` are shortened to it (0:
    never). `dropout` replaces every dropout of the model. `balance` weighs each label by the inverse of its frequency.
    `checkpointing` computes activations twice instead of keeping them. `layers` keeps only the first of them. With
    `lora`, weights stay as they are, and products of two matrices of that rank are learnt (Hu et al., ICLR 2022).
    `language` is what a model that hears learns to write.

    With `patience`, a tenth of the training examples validates now and then, training ends when that has not become
    better so many times in a row, and the best weights are kept.
    """

    epochs: int = 1
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 1e-4
    optimizer: Optimizer = Optimizer.ADAMW
    schedule: Schedule = Schedule.LINEAR
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    clip_norm: float = 1.0
    dropout: float | None = None
    label_smoothing: float = 0.0
    balance: bool = False
    checkpointing: bool = False
    compile: bool = False
    layers: int | None = None
    lora: int = 0
    patience: int = 0
    max_length_tokens: int = 256
    language: str | None = None
    held_out: int = 1000
    seed: int = 0
    precision: TrainingPrecision = TrainingPrecision.AUTO
    device: Device = Device.AUTO


class Teacher(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint whose answers are learnt as well: `share` is their part of the loss, `temperature` softens them."""

    checkpoint: str
    share: float = 0.5
    temperature: float = 2.0


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """A fine-tuning as it is ordered: base model, data, and how to train.

    `task` and `problem` are guessed from the data where they are `None`, columns likewise; `where` keeps only rows with
    these values, and `limit` so many of them. `labels` name those of the data, in their sorted order.
    """

    base_model: str
    data: str
    evaluation: str | None = None
    task: Task | None = None
    problem: Problem | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    where: dict[str, str] = {}
    limit: int | None = None
    labels: tuple[str, ...] | None = None
    config: FinetuneConfig = FinetuneConfig()
    teacher: Teacher | None = None
    tensorboard: bool = False


class Best(msgspec.Struct, frozen=True, kw_only=True):
    """The step whose weights were kept, and its value on the validation examples: accuracy, or else the loss."""

    step: int
    metric: str
    value: float


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """How many training examples have up to so many tokens and more than the entry before, and the fraction that was
    cut to the limit."""

    counts: dict[int, int]
    truncated_fraction: float


class DataSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What is learnt from. `columns` are those of the file, by what they hold; `labels` how often each occurs among the
    examples trained on."""

    task: Task
    problem: Problem
    columns: dict[str, str]
    examples: dict[str, int]
    labels: dict[str, int]
    duplicates_removed: int
    leaked_removed: int
    lengths: Lengths | None


Told = Callable[[DataSummary], None]
"""Hears what is going to be learnt from."""


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`training.json`: what fine-tuning did. `value` (of `metric`) and `scores` are the fp32 model's on the held-out
    examples; `before` is the base model's, where it could already do the task. Only single labels have `scores`.

    `seconds_s` is the time of the training steps, over all attempts if the run was interrupted; waiting for a turn and
    saving are left out. The loss of every step stands in `losses.csv`, the answers in `predictions.npz`. Of
    `weights`, `learnt_weights` were trained.
    """

    schema_version: int
    fingerprint: str
    base_model: str
    config: FinetuneConfig
    precision: TrainingPrecision
    device: str
    processes: int
    labels: tuple[str, ...]
    data_sha256: dict[str, str]
    data: DataSummary
    weights: int
    learnt_weights: int
    steps: int
    seconds_s: float
    samples_per_s: float
    final_loss: float
    metric: str
    value: Estimate
    before: Estimate | None
    scores: Scores | None
    teacher: Teacher | None = None
    best: Best | None = None
    checkpoint_sha256: str
    versions: dict[str, str]
