"""The data that a lesson names (light: no torch)."""

from functools import partial
from pathlib import Path

from artifact.task import Task
from errors import UserError
from models.rows import Columns, TaskRows, column_names, guess_task, read_task_rows
from models.training import Lesson


def read_lesson(lesson: Lesson) -> tuple[TaskRows, TaskRows | None]:
    """The examples, and those to evaluate on where a file of its own holds them; both must be labelled. That file has
    the same columns, or usual ones of its own.

    Raises `UserError` naming the file and the row or column that is missing or wrong.
    """
    data, columns = Path(lesson.data), Columns(lesson.text_column, lesson.pair_column, lesson.label_column)
    read = partial(
        read_task_rows,
        task=lesson.task or guess_task(data, columns),
        columns=columns,
        labelled=True,
    )
    rows = read(data, where=lesson.where, limit=lesson.limit)
    if lesson.config.language is not None and rows.task is not Task.SPEECH2TEXT_GENERATION:
        raise UserError(f"--language is for models that hear recordings, and {rows.task} reads none", "leave it out")
    if lesson.evaluation is None:
        return rows, None
    is_alike = set(rows.columns.named.values()) <= set(column_names(Path(lesson.evaluation)))
    evaluation = read(Path(lesson.evaluation), columns=rows.columns if is_alike else Columns())
    if (evaluation.columns.pair is None) != (rows.columns.pair is None):
        raise UserError(f"{rows.source} and {evaluation.source} are not both of pairs", "name their --pair-column")
    return rows, evaluation
