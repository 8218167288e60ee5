"""Where everything of one run lies."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from artifact.precision import Precision
from artifact.records import read_json, write_json
from errors import UserError

SCHEMA_VERSION = 1


class CheckpointLink(msgspec.Struct, frozen=True, kw_only=True):
    """`checkpoint.json`: the checkpoint of a run whose checkpoint lies elsewhere (path relative to the run)."""

    schema_version: int
    checkpoint: str


class RunMark(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json`: nobody else's files lie in this folder."""

    schema_version: int


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths inside `runs/NAME/`."""

    directory: Path

    @property
    def data(self) -> Path:
        """The split that fine-tuning made: `train` and `evaluation`."""
        return self.directory / "data"

    @property
    def evaluation_data(self) -> Path:
        return self._data("evaluation")

    @property
    def training_data(self) -> Path:
        return self._data("train")

    def _data(self, name: str) -> Path:
        """A `.csv`, or a `.jsonl` where rows hold lists."""
        lines = self.data / f"{name}.jsonl"
        return lines if lines.is_file() else self.data / f"{name}.csv"

    @property
    def training(self) -> Path:
        return self.directory / "training.json"

    @property
    def losses(self) -> Path:
        """The loss of every step of fine-tuning."""
        return self.directory / "losses.csv"

    @property
    def tensorboard(self) -> Path:
        """Event files of fine-tuning."""
        return self.directory / "tensorboard"

    @property
    def predictions(self) -> Path:
        """What the fine-tuned model answers to the evaluation data, and what is right."""
        return self.directory / "predictions.npz"

    @property
    def own_checkpoint(self) -> Path:
        return self.directory / "checkpoint"

    @property
    def reference(self) -> Path:
        return self.directory / "reference.npz"

    @property
    def golden(self) -> Path:
        return self.directory / "golden.json"

    @property
    def serving(self) -> Path:
        """How items become inputs without transformers."""
        return self.directory / "serving.json"

    @property
    def measurements(self) -> Path:
        return self.directory / "measurements.jsonl"

    @property
    def load(self) -> Path:
        """What load tests saw, and `load.md` about it."""
        return self.directory / "load.jsonl"

    @property
    def load_report(self) -> Path:
        return self.directory / "load.md"

    @property
    def verdict(self) -> Path:
        return self.directory / "verdict.json"

    @property
    def report(self) -> Path:
        return self.directory / "report.md"

    @property
    def page(self) -> Path:
        return self.directory / "report.html"

    @property
    def variants_report(self) -> Path:
        return self.directory / "variants.md"

    @property
    def checkpoint_link(self) -> Path:
        return self.directory / "checkpoint.json"

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint's folder: the run's own, or the one that was exported from elsewhere."""
        if (self.own_checkpoint / "config.json").is_file():
            return self.own_checkpoint
        if self.checkpoint_link.is_file():
            link = read_json(self.checkpoint_link, CheckpointLink)
            return Path(os.path.normpath(self.directory.resolve() / link.checkpoint))
        return None

    def link_checkpoint(self, checkpoint: Path) -> None:
        """Remember a checkpoint that lies outside this run; `UserError` when the run already has one of its own."""
        if checkpoint.resolve() == self.own_checkpoint.resolve():
            return
        if (self.own_checkpoint / "config.json").is_file():
            raise UserError(
                f"{self.directory} has a checkpoint of its own, so {checkpoint} cannot be exported into it",
                "name another folder with --out",
            )
        relative = os.path.relpath(checkpoint.resolve(), self.directory.resolve())
        write_json(self.checkpoint_link, CheckpointLink(schema_version=SCHEMA_VERSION, checkpoint=relative))

    def variant(self, precision: Precision) -> Path:
        """Folder of one precision's graph and its `variant.json`."""
        return self.directory / "variants" / precision.value

    @property
    def mark(self) -> Path:
        """`run.json`, which says that this folder is a run and may be written into."""
        return self.directory / "run.json"

    @property
    def is_run(self) -> bool:
        return self.mark.is_file()

    def begin(self) -> None:
        """Mark the folder as a run; the first thing that is written into it."""
        if not self.is_run:
            write_json(self.mark, RunMark(schema_version=SCHEMA_VERSION))


def claim_output(directory: Path) -> RunFolder:
    """The run folder to write into: new, empty, or marked as a run.

    Raises `UserError` when `directory` is a file, or holds something that no run put there.
    """
    run = RunFolder(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--out {directory} is a file", "name a folder")
    if directory.is_dir() and any(directory.iterdir()) and not run.is_run:
        raise UserError(
            f"--out {directory} holds something else and would be mixed with this run",
            "name a new or empty folder",
        )
    return run
