"""A fine-tuning from its order to its run (light: no torch)."""

from pathlib import Path

from artifact.progress import Progress, silent
from models.finetune import finetune
from models.reading import read_lesson
from models.rows import TaskRows
from models.training import Lesson, Told, TrainingRecord
from models.turns import Turn, always


def learn(
    lesson: Lesson,
    out: Path,
    *,
    rows: tuple[TaskRows, TaskRows | None] | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    told: Told = lambda summary: None,
    turn: Turn = always,
) -> tuple[TrainingRecord, bool]:
    """Read the data of a lesson, unless its `rows` were read before, and fine-tune. Returns and raises what `finetune`
    does."""
    data, evaluation = rows or read_lesson(lesson)
    return finetune(
        lesson.base_model,
        data,
        out,
        evaluation=evaluation,
        labels=lesson.labels,
        problem=lesson.problem,
        config=lesson.config,
        overwrite=overwrite,
        progress=progress,
        told=told,
        turn=turn,
        teacher=lesson.teacher,
        tensorboard=lesson.tensorboard,
    )
