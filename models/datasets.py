"""Rows of a data set of the `datasets` library: a folder that it saved, or a name on the Hub."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from errors import UserError

HUB = "hub:"
"""Begins the name of a data set on the Hub: `hub:stanfordnlp/imdb`, `hub:stanfordnlp/imdb:test` for another part, or
`hub:nyu-mll/glue:sst2:train` for one of several configurations."""

TRAINING = "train"


def is_dataset(path: Path) -> bool:
    """Whether `path` names a data set of that library, and not a file."""
    return str(path).startswith(HUB) or path.is_dir()


def dataset_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers from 1; classes as their names. Of several parts the one for training is read.

    Raises `UserError` when the library is missing, or what it says when it cannot load the data.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"{path} needs the package datasets", "pip install 'steelyard[datasets]'") from None
    try:
        found = _loaded(datasets, path)
    except Exception as error:  # it passes on what fsspec, pyarrow and the Hub's client raise
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{path} cannot be loaded: {said}",
            "give a folder that save_to_disk wrote, or hub:NAME where there is network",
        ) from error
    if isinstance(found, dict):
        if TRAINING not in found:
            raise UserError(f"{path} has no part '{TRAINING}'", f"name one of its folders: {', '.join(found)}")
        found = found[TRAINING]
    for name, feature in found.features.items():
        if isinstance(feature, datasets.Audio | datasets.Image):  # paths of files are read, and nothing is decoded here
            found = found.cast_column(name, type(feature)(decode=False))
    named = {name: _namer(datasets, feature) for name, feature in found.features.items()}
    for number, row in enumerate(found, start=1):
        yield number, {name: named[name](value) for name, value in row.items()}


def _loaded(datasets: Any, path: Path) -> Any:
    if path.is_dir():
        return datasets.load_from_disk(str(path))
    name, *more = str(path).removeprefix(HUB).split(":")
    configuration = more[0] if len(more) > 1 else None
    return datasets.load_dataset(name, configuration, split=(more and more[-1]) or TRAINING)


def _namer(datasets: Any, feature: Any) -> Callable[[Any], Any]:
    """What turns a value of a feature into what a file would hold: the names of classes, text for numbers."""
    if isinstance(feature, datasets.ClassLabel):
        return lambda value: None if value is None or value < 0 else feature.int2str(value)
    inner = getattr(feature, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        return lambda values: (
            values and [None if value is None or value < 0 else inner.int2str(value) for value in values]
        )
    return lambda value: value
