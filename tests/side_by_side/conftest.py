"""The same training of the tiny model in two settings that every CPU has, made once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from models.rows import TaskRows
from models.training import Lesson
from side_by_side.records import SideBySide
from side_by_side.setting import parse_settings
from side_by_side.train import train_side_by_side
from tests.models.conftest import CONFIG, examples, separable, separable_csv, trained

__all__ = ["examples", "separable", "separable_csv", "trained"]


@dataclass(frozen=True)
class Compared:
    out: Path
    found: SideBySide
    lesson: Lesson


def make_lesson(checkpoint: Path, data: Path) -> Lesson:
    return Lesson(base_model=str(checkpoint), data=str(data), config=CONFIG)


@pytest.fixture(scope="package")
def compared(
    tiny_checkpoint: Path, separable_csv: Path, separable: TaskRows, tmp_path_factory: pytest.TempPathFactory
) -> Compared:
    """fp32 and bf16 on the CPU, and a GPU that is not there. Do not write into it; copy it."""
    out, lesson = tmp_path_factory.mktemp("side") / "out", make_lesson(tiny_checkpoint, separable_csv)
    found = train_side_by_side(lesson, parse_settings("cpu/fp32,cpu/bf16,cuda/bf16"), out)
    return Compared(out, found, lesson)
