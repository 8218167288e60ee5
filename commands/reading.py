"""What candidates are compared on, from the user's files: texts with what is right of each, or texts alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError

if TYPE_CHECKING:
    from artifact.examples import Examples, Label
    from artifact.judged import Judged
    from artifact.predict.tokens import TextItem
    from measure.source import ModelSource
    from models.rows import Columns, Row, TaskRows


def read_compared(
    model: Path,
    data: Path | None,
    columns: Sequence[str | None] = (),
    where: Mapping[str, str] | None = None,
) -> "Examples":
    """What candidates are judged on: labelled texts, pairs, words or pictures, or for a language model texts alone, and
    what is to be written of them, or of recordings, if it is an encoder-decoder; by default the run's own.

    `columns` are those of the text, of its pair and of the label; `None` and what is missing are guessed. Raises
    `UserError` for a file or a model that does not go with the other.
    """
    from artifact.examples import Examples, read_examples, read_heard, read_texts
    from artifact.predict.rows import WRITTEN_COLUMNS
    from artifact.run_folder import RunFolder
    from measure.source import find_models
    from models.rows import Columns

    if data is None:
        data = RunFolder(model).evaluation_data
        if not data.is_file():
            raise UserError(f"{model} has no evaluation data of its own", "name a file with --data")
    if not data.is_file():
        raise UserError(f"{data} does not exist", "check the path given with --data")
    source = find_models(model)
    named = Columns(*columns)
    if not source.writes:
        return _judged(source, data, named, where)
    if named.pair:
        raise UserError("--pair-column is for pairs of texts", "leave it out for a language model")
    conditions = dict(where or {})
    if source.hears:
        return read_heard(data, text_column=named.text, label_column=named.label, where=conditions)
    if source.reading is not None:
        return read_examples(
            data,
            text_column=named.text,
            label_column=named.label,
            where=conditions,
            usual_labels=WRITTEN_COLUMNS,
        )
    if named.label or where:
        raise UserError("--label-column and --where are for labelled texts", "leave them out for a language model")
    return Examples.unlabelled(read_texts(data, text_column=named.text), data)


def _judged(source: "ModelSource", data: Path, columns: "Columns", where: Mapping[str, str] | None) -> "Examples":
    from artifact.examples import Examples
    from artifact.judged import Judged

    judged = source.decided()
    rows = _rows(source, data, columns, where, judged=True, labelled=judged is not Judged.VECTOR)
    labels = tuple(_label(judged, row) for row in rows.rows)
    places = tuple(row.place for row in rows.rows)
    items = rows.texts if source.image is None else tuple(map(str, rows.texts))
    return Examples(items, labels, data, str(rows.columns.text), str(rows.columns.label), places)


def _label(judged: "Judged", row: "Row") -> "Label":
    from artifact.judged import Judged
    from models.task_examples import answers_of, number_of, several

    match judged:
        case Judged.TEXT:
            return str(row.label).strip()
        case Judged.SCORE:
            return repr(number_of(row))
        case Judged.VECTOR:
            return "" if row.label is None else str(row.label).strip()
        case Judged.LABEL:
            return tuple(str(name).strip() for name in several(row.label, row.place))
        case Judged.SPAN:
            return answers_of(row)[0]
        case Judged.WORD if isinstance(row.label, list):
            return tuple(str(tag).strip() for tag in row.label)
    raise UserError(f"{row.place}: there is no list of tags, one for each word", "fix or remove that row")


def read_run(source: "ModelSource", data: Path, columns: Sequence[str | None] = ()) -> "tuple[TextItem, ...]":
    """What a model that answers in one pass is run on, without labels. Raises `UserError` as `read_compared` does."""
    from models.rows import Columns

    source.decided()
    return _rows(source, data, Columns(*columns), None, judged=False).texts


def _rows(
    source: "ModelSource",
    data: Path,
    columns: "Columns",
    where: Mapping[str, str] | None,
    *,
    judged: bool,
    labelled: bool = False,
) -> "TaskRows":
    from artifact.predict.rows import LABEL_COLUMNS
    from artifact.task import Task
    from models.rows import read_task_rows

    task = source.task or Task.TEXT_CLASSIFICATION
    kinds = LABEL_COLUMNS if task is Task.FEATURE_EXTRACTION and judged else ()
    rows = read_task_rows(data, task, columns=columns, where=where, labelled=labelled, more_labels=kinds)
    if rows.columns.pair is None and (source.paired or _learnt_pairs(source.directory)):
        raise UserError(
            f"{data} holds no second text, and {source.directory} answers pairs of texts",
            "name its column with --pair-column",
        )
    return rows


def _learnt_pairs(directory: Path) -> bool:
    """Whether a run was fine-tuned on pairs; only an export says so of its own."""
    from artifact.records import read_if_present
    from artifact.run_folder import RunFolder
    from models.training import TrainingRecord

    record = read_if_present(RunFolder(directory).training, TrainingRecord)
    return record is not None and "pair" in record.data.columns
