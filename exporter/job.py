"""One export, from what is exported to the records of its variants."""

import functools
import gc
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir

from artifact.precision import Precision
from artifact.progress import Progress
from artifact.records import write_json
from artifact.run_folder import RunFolder
from artifact.task import ANSWERS, Answer, Task
from artifact.variant import Variant
from errors import GateFailed, UserError
from exporter.derive import Material
from exporter.examples import check_apart, own_examples, read_source
from exporter.from_checkpoint import IMAGE_AXES, checkpoint_subject, fix_axes
from exporter.gate import Gate
from exporter.inspect import inspect_graph
from exporter.maker import Maker, Training
from exporter.options import Profile
from exporter.parity import reference
from exporter.request import ModuleSource, Request
from exporter.save import save_graph
from exporter.serving import Proof, prove_serving
from exporter.sessions import open_file
from exporter.subject import Subject
from exporter.trace import trace
from models.checkpoint import Checkpoint, open_checkpoint
from models.example_set import ExampleSet
from models.metrics import CLASSIFIERS, MULTI_LABEL, REGRESSION, Metric, metric_for, problem_of

CALIBRATION_EXAMPLES = 128
SELECTION_EXAMPLES = 256
CALIBRATION_BATCH = 16
OBSERVED_BATCHES = 16
AGREES = 1e-3
"""Share of the scale by which a traced graph may differ before its image axes are fixed; the gate asks for less."""


class Job:
    """Makes the variants of one request that are not there yet."""

    def __init__(
        self, request: Request, run: RunFolder, progress: Progress, source_sha256: str, built: Subject | None = None
    ) -> None:
        self._request, self._run, self._progress = request, run, progress
        self._source_sha256, self._built = source_sha256, built
        self._checkpoint: Checkpoint | None = None
        if not isinstance(request.model, ModuleSource):
            self._checkpoint = open_checkpoint(request.model, task=request.task, allow_pickle=request.allow_pickle)

    def make(self, marks: Mapping[Precision, str], kept: Mapping[Precision, Variant]) -> dict[Precision, Variant]:
        """Trace if need be, then derive, gate and record each precision of `marks` that is not in `kept`.

        Raises `GateFailed` after all others are made for precisions that this graph cannot be turned into.
        """
        todo = [precision for precision in marks if precision not in kept]
        total = len(todo) + 2
        self._progress("export", 0, total, "one trace")
        started = time.perf_counter()
        subject = self._built or self._subject()
        examples, inputs = self._examples(subject)  # read before anything is written
        calibration = self._calibration(subject, examples)
        with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
            traced, traced_s = self._run.variant(Precision.FP32) / "model.onnx", 0.0
            if Precision.FP32 in todo or self._request.options.profile is not Profile.PORTABLE:
                traced = Path(folder) / "model.onnx"
                subject = self._trace(subject, traced)
                traced_s = time.perf_counter() - started
            else:
                subject = _as_traced(subject, traced)
            self._progress("export", 1, total, "reference answers from PyTorch")
            maker = self._maker(subject, traced, examples, inputs, calibration)
            self._built = None
            del subject  # its weights are in the file now
            made, refused = {}, []
            with _only_new_garbage():
                for done, precision in enumerate(todo, start=2):
                    self._progress("export", done, total, precision)
                    spent_s = traced_s if precision is Precision.FP32 else 0.0
                    try:
                        tell = functools.partial(self._tell, done, total, precision)
                        made[precision] = maker.make(precision, marks[precision], spent_s, tell)
                    except GateFailed as error:
                        refused.append(f"{precision}: {error.message}")
        self._progress("export", total, total)
        if refused:
            raise GateFailed("; ".join(refused), "leave that precision out with --precisions")
        return made

    def _tell(self, done: int, total: int, precision: Precision, what: str) -> None:
        self._progress("export", done, total, f"{precision}: {what}")

    def _trace(self, subject: Subject, path: Path) -> Subject:
        """Write the traced graph; the subject with the axes that the graph has.

        An image whose size may vary in PyTorch but not in the graph gets a fixed one, as the graph's inputs then say.
        """
        sizes = [axis for axis in subject.axes if axis.name in IMAGE_AXES]
        try:
            self._save(trace(subject, opset=self._request.opset), path)
            if not sizes or _agrees(subject, path):
                return subject
        except UserError:
            if not sizes:
                raise
        subject = fix_axes(subject, sizes)
        self._save(trace(subject, opset=self._request.opset), path)
        return subject

    def _save(self, graph: onnx_ir.Model, path: Path) -> None:
        save_graph(graph, path, external_data_bytes=self._request.external_data_bytes)

    def _maker(
        self, subject: Subject, traced: Path, examples: ExampleSet, inputs: str, calibration: ExampleSet | None
    ) -> Maker:
        """Everything that is needed of PyTorch: its answers, the golden examples, and batches to observe."""
        judged = reference(subject, self._answer(subject), examples, inputs)
        training = _training(calibration)
        self._run.begin()
        if self._checkpoint:
            self._run.link_checkpoint(self._checkpoint.directory)
        return Maker(
            request=self._request,
            run=self._run,
            material=Material(
                fp32=traced,
                batches=tuple(case.batch for case in judged.batches[:OBSERVED_BATCHES]),
                calibration=training.calibration,
                options=self._request.options,
            ),
            gate=Gate(judged, self._metric()),
            training=training,
            proof=self._write_golden(subject, judged.examples),
            task=self._task,
            source_sha256=self._source_sha256,
        )

    @property
    def _task(self) -> Task:
        return self._checkpoint.task if self._checkpoint else Task.MODULE

    def _subject(self) -> Subject:
        if self._checkpoint is None:
            raise ValueError("a module is built before the job begins")
        pooling = self._request.pooling
        if pooling is not None and self._task is not Task.FEATURE_EXTRACTION:
            raise UserError(
                f"--pooling is for models that give features, and this one is for {self._task}",
                "leave it out, or say --task feature-extraction for a bare encoder",
            )
        return checkpoint_subject(self._checkpoint, pooling)

    def _answer(self, subject: Subject) -> Answer:
        """Where this model's answer lies: the task's own, but for a number, several labels, or a pooled vector."""
        if self._task is Task.MODULE or self._request.pooling:
            return Answer(subject.outputs, {})
        answer = ANSWERS[self._task]
        if self._task in CLASSIFIERS and self._checkpoint:
            problem = problem_of(self._checkpoint.problem, len(self._checkpoint.labels))
            if problem == REGRESSION:
                return Answer(answer.outputs, {})
            return replace(answer, independent=problem == MULTI_LABEL)
        return answer

    def _metric(self) -> Metric | None:
        if self._checkpoint is None:
            return None
        return metric_for(self._task, problem=self._checkpoint.problem, labels=len(self._checkpoint.labels))

    def _examples(self, subject: Subject) -> tuple[ExampleSet, str]:
        if self._request.data is None:
            return own_examples(subject, self._checkpoint)
        return read_source(self._request.data, subject, self._checkpoint), self._request.data.path.name

    def _calibration(self, subject: Subject, judged: ExampleSet) -> ExampleSet | None:
        """Training examples that are none of the judged ones."""
        source = self._request.calibration
        if source is None:
            return None
        few = replace(source, limit=CALIBRATION_EXAMPLES + SELECTION_EXAMPLES)
        examples = read_source(few, subject, self._checkpoint)
        check_apart(examples, judged, [item.name for item in subject.inputs])
        return examples

    def _write_golden(self, subject: Subject, examples: ExampleSet) -> Proof | None:
        """Write how items are prepared without transformers, and golden examples where that can be done."""
        if self._checkpoint is None:
            return None
        proof = prove_serving(self._checkpoint, subject, examples)
        write_json(self._run.serving, proof.serving)
        if proof.golden is not None:
            write_json(self._run.golden, proof.golden)
        return proof


def _as_traced(subject: Subject, path: Path) -> Subject:
    """The subject with the axes that a graph traced earlier has."""
    named = {axis for spec in inspect_graph(path).inputs for axis in spec.shape}
    return fix_axes(subject, [axis for axis in subject.axes if axis.name not in named])


@contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Let collections inside the block look at new objects alone: graphs need many, and torch brings a million."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _agrees(subject: Subject, path: Path) -> bool:
    """Whether a traced graph answers as PyTorch does on every shape; window attention, for one, bakes sizes in."""
    session = open_file(path)
    for number, sizes in enumerate(subject.shape_grid()):
        batch = subject.random(sizes, seed=number)
        try:
            found = session.answer(batch)
        except Exception:  # whatever the engine raises, this shape does not run
            return False
        for name, expected in subject.answer(batch).items():
            same_shape = found[name].shape == expected.shape
            if not same_shape or not np.abs(found[name] - expected).max() <= AGREES * np.abs(expected).max():
                return False
    return True


def _training(examples: ExampleSet | None) -> Training:
    """A third of the training examples for the ranges, the rest to choose between ways to calibrate."""
    if examples is None:
        return Training((), None)
    rows = np.random.default_rng(0).permutation(len(examples)).tolist()
    count = min(CALIBRATION_EXAMPLES, -(-len(rows) // 3))
    ranged, rest = rows[:count], rows[count:]
    batches = tuple(
        examples.batch(ranged[start : start + CALIBRATION_BATCH]) for start in range(0, len(ranged), CALIBRATION_BATCH)
    )
    return Training(batches, examples.select(rest) if rest else None)
