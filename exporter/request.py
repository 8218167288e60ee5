"""What the user asks the exporter for, and the fingerprint by which a variant is known to answer it."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from artifact.pooling import Pooling
from artifact.precision import Precision
from artifact.records import fingerprint, sha256_file
from artifact.task import Task
from errors import UserError
from exporter.options import EXTERNAL_DATA_BYTES, Options
from models.rows import LAYOUTS, Columns, TaskRows, read_task_rows

RECIPE = 9
"""Raised whenever the same checkpoint would give another graph, so that older variants are made again."""

EXPORTED = tuple(precision for precision in Precision if precision is not Precision.TF32)
"""Every precision the exporter can make; TF32 is a way to multiply, not a file."""

CALIBRATED = frozenset({Precision.INT8_STATIC})
"""Precisions whose ranges come from training examples."""

ARRAYS = ".npz"

VERSIONED = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript")


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """`FILE.py:FUNCTION`, and safetensors weights to load into what the function builds, if there are any.

    The function returns a module and its sample inputs: a tensor, a tuple of tensors or a dict of them, each with at
    least two rows. A third value may name axes besides the batch that vary: `{input: {axis number: name}}`.
    """

    file: Path
    function: str
    weights: Path | None = None

    @classmethod
    def parse(cls, text: str, weights: Path | None = None) -> "ModuleSource":
        """Read `FILE:FUNCTION`; `UserError` when it is neither that nor a file that exists."""
        file, colon, function = text.rpartition(":")
        if not colon or not function.isidentifier():
            raise UserError(f"--module has '{text}'", "write FILE.py:FUNCTION, such as net.py:build")
        if not Path(file).is_file():
            raise UserError(f"--module {file} does not exist", "give the path of a Python file")
        if weights is not None and weights.suffix != ".safetensors":
            raise UserError(
                f"{weights} is not a .safetensors file", "save the weights with safetensors.torch.save_model"
            )
        if weights is not None and not weights.is_file():
            raise UserError(f"{weights} does not exist", "check the path of the module's weights")
        return cls(Path(file), function, weights)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of examples: `.csv`, `.tsv` or `.jsonl` for texts, `.npz` for any inputs. At most `limit` are read."""

    path: Path
    columns: Columns
    limit: int | None = None

    def rows(self, task: Task) -> TaskRows:
        """Its rows, as a task reads them. Raises `UserError` naming the file and the row or column that is amiss."""
        return read_task_rows(self.path, task, columns=self.columns, limit=self.limit)

    @property
    def sha256(self) -> str:
        """Hash of the file; `UserError` when it cannot be read."""
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist", "check the path given with --data or --calibration")
        return sha256_file(self.path)


@dataclass(frozen=True, slots=True)
class Request:
    """What to export, to where, how, and what to check it with.

    `data` are the examples that variants are judged by, `calibration` training examples that int8-static's ranges come
    from. `language` is what a model writes that hears many. `selective` gives layers back to fp32 when a variant fails
    its gate; `external_data_bytes` is the size of weights above which they go into a second file. With `gguf` each
    precision is written for llama.cpp, too.
    """

    model: Path | ModuleSource
    out: Path
    precisions: tuple[Precision, ...]
    data: Source | None = None
    calibration: Source | None = None
    task: Task | None = None
    pooling: Pooling | None = None
    opset: int | None = None
    options: Options = field(default_factory=Options)
    is_language: bool = False
    selective: bool = True
    allow_pickle: bool = False
    gguf: bool = False
    language: str | None = None
    external_data_bytes: int = EXTERNAL_DATA_BYTES

    def check(self) -> None:
        """Raise `UserError` for precisions that cannot be made, or not from what is given."""
        unknown = [precision for precision in self.precisions if precision not in EXPORTED]
        if unknown or not self.precisions:
            raise UserError(
                f"--precisions names {', '.join(unknown) or 'nothing'}, which cannot be exported",
                f"choose from: {', '.join(EXPORTED)}",
            )
        needy = [precision for precision in self.precisions if precision in CALIBRATED]
        if needy and self.calibration is None:
            raise uncalibrated(needy[0])

    def fingerprints(self, source_sha256: str, task: Task | None) -> dict[Precision, str]:
        """What each variant depends on; the fp32 graph is always among them, because all others come from it. A model
        that is for this task may read files that the data name, of which it depends, too."""
        common: dict[str, object] = {
            "recipe": RECIPE,
            "source": source_sha256,
            "task": self.task,
            "pooling": [self.pooling.mode, self.pooling.normalize] if self.pooling else None,
            "opset": self.opset,
            "data": _mark(self.data, task),
            "profile": self.options.profile,
            "external_data_bytes": self.external_data_bytes,
            "versions": versions(),
        }
        own: dict[str, object] = {
            "target": self.options.target,
            "weights": self.options.weights,
            "block": [self.options.block_size, self.options.accuracy_level],
            "selective": self.selective,
            "calibration": _mark(self.calibration, task),
        }
        return {
            precision: fingerprint({"precision": precision, **common, **({} if precision is Precision.FP32 else own)})
            for precision in dict.fromkeys((Precision.FP32, *self.precisions))
        }


def uncalibrated(precision: Precision) -> UserError:
    """The error for ranges that no training example is there for."""
    return UserError(
        f"{precision} needs examples of the training split to find its ranges, and there are none",
        "give them with --calibration FILE, or leave it out with --precisions",
    )


def versions() -> dict[str, str]:
    """Versions of everything that shapes a graph, with the one build of ONNX Runtime that is installed."""
    import onnxruntime

    return {**{name: version(name) for name in VERSIONED}, "onnxruntime": onnxruntime.__version__}


def _mark(source: Source | None, task: Task | None) -> object:
    """What a variant depends on of a file: its rows as the task reads them, or all of one that holds arrays."""
    if source is None:
        return None
    if task is not None and task in LAYOUTS and source.path.suffix != ARRAYS:
        return source.rows(task).sha256
    return [source.sha256, source.limit]
