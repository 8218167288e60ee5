"""A set that any classifier can learn, and the tiny model trained on it once."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from artifact.task import Task
from models.finetune import finetune
from models.rows import Columns, Row, TaskRows, write_rows
from models.training import Device, FinetuneConfig, TrainingPrecision, TrainingRecord

CONFIG = FinetuneConfig(
    epochs=4, batch_size=8, learning_rate=5e-3, held_out=40, precision=TrainingPrecision.FP32, device=Device.CPU
)
"""200 examples are trained on in 4 × 25 = 100 steps, and a step is saved every 20."""

STEPS = 100


@dataclass(frozen=True)
class Trained:
    out: Path
    record: TrainingRecord


Make = Callable[..., TaskRows]


@pytest.fixture(scope="session")
def examples() -> Make:
    """Make examples from (text, label) pairs."""

    def make(*pairs: tuple[str, str], source: str = "data.csv") -> TaskRows:
        rows = (
            Row(f"{source}, row {number}", number, text, None, label)
            for number, (text, label) in enumerate(pairs, start=1)
        )
        return TaskRows(Task.TEXT_CLASSIFICATION, Path(source), Columns("text", None, "label"), tuple(rows))

    return make


@pytest.fixture(scope="session")
def separable(examples: Make) -> TaskRows:
    """240 different texts of two labels that have no word in common."""
    words = {"good": "warm funny best film year hours", "bad": "dull slow far too long want"}
    draw = random.Random(0)
    texts = {label: dict[str, None]() for label in words}
    for label, known in words.items():
        while len(texts[label]) < 120:
            texts[label][" ".join(draw.choices(known.split(), k=draw.randint(3, 12)))] = None
    return examples(*((text, label) for label in words for text in texts[label]))


@pytest.fixture(scope="session")
def separable_csv(separable: TaskRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("separable"), "data", separable)


@pytest.fixture(scope="package")
def trained(tiny_checkpoint: Path, separable: TaskRows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny model trained without interruption. Do not write into it; copy it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    record, made = finetune(str(tiny_checkpoint), separable, out, config=CONFIG)
    assert made
    return Trained(out, record)


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tiny model is slower on two threads, and other tests may be running."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
