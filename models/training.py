"""How to fine-tune, and what `training.json` records of it (light: no torch)."""

from enum import StrEnum

import msgspec

SCHEMA_VERSION = 1


class TrainingPrecision(StrEnum):
    """Arithmetic of the training steps; weights are always kept in fp32. `auto` is bf16 where the device has it."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class Device(StrEnum):
    """Where to train; `auto` is a GPU where torch finds one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class FinetuneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to fine-tune. `max_length_tokens` cuts longer texts, in training and wherever the checkpoint is served."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    max_length_tokens: int = 256
    held_out: int = 1000
    seed: int = 0
    precision: TrainingPrecision = TrainingPrecision.AUTO
    device: Device = Device.AUTO


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`training.json`: what fine-tuning did. Accuracy is that of the fp32 model on the held-out examples.

    `seconds_s` is the time of the training steps, over all attempts if the run was interrupted.
    """

    schema_version: int
    fingerprint: str
    base_model: str
    config: FinetuneConfig
    precision: TrainingPrecision
    device: str
    labels: tuple[str, ...]
    data_sha256: dict[str, str]
    examples: dict[str, int]
    class_counts: dict[str, int]
    duplicates_removed: int
    leaked_removed: int
    truncated_fraction: float
    steps: int
    seconds_s: float
    samples_per_s: float
    final_loss: float
    accuracy_fraction: float
    checkpoint_sha256: str
    versions: dict[str, str]
