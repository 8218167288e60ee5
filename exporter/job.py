"""One export, from what is exported to the records of its variants."""

import gc
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from artifact.golden import Golden, GoldenExample
from artifact.precision import Precision
from artifact.progress import Progress
from artifact.records import write_json
from artifact.run_folder import RunFolder
from artifact.task import ANSWERS, Activation, Answer, Task
from artifact.tokenizer import text_encoder
from artifact.variant import Variant
from errors import UserError
from exporter.derive import Material
from exporter.examples import check_apart, own_examples, read_source
from exporter.from_checkpoint import IMAGE_AXES, checkpoint_subject, fix_axes
from exporter.from_module import module_subject
from exporter.gate import Gate
from exporter.inspect import inspect_graph
from exporter.maker import Maker, Training
from exporter.options import Profile
from exporter.parity import reference
from exporter.request import CALIBRATED, ModuleSource, Request
from exporter.save import save_graph
from exporter.subject import Subject
from exporter.trace import trace
from models.checkpoint import Checkpoint, load_tokenizer, open_checkpoint, text_limits
from models.example_set import ExampleSet
from models.metrics import Metric, metric_for

CALIBRATION_EXAMPLES = 128
SELECTION_EXAMPLES = 256
CALIBRATION_BATCH = 16
OBSERVED_BATCHES = 16
GOLDEN_EXAMPLES = 12


class Job:
    """Makes the variants of one request that are not there yet."""

    def __init__(self, request: Request, run: RunFolder, progress: Progress) -> None:
        self._request, self._run, self._progress = request, run, progress
        self._checkpoint: Checkpoint | None = None
        if not isinstance(request.model, ModuleSource):
            self._checkpoint = open_checkpoint(request.model, task=request.task, allow_pickle=request.allow_pickle)

    def make(self, marks: Mapping[Precision, str], kept: Mapping[Precision, Variant]) -> dict[Precision, Variant]:
        """Trace if need be, then derive, gate and record each precision of `marks` that is not in `kept`."""
        todo = [precision for precision in marks if precision not in kept]
        total = len(todo) + 2
        self._progress("export", 0, total, "one trace")
        started = time.perf_counter()
        subject = self._subject()
        with self._folder_of_trace() as folder:
            traced, traced_s = folder / "model.onnx", 0.0
            if Precision.FP32 in todo or folder != self._run.variant(Precision.FP32):
                subject = self._trace(subject, traced)
                traced_s = time.perf_counter() - started
            else:
                subject = _as_traced(subject, traced)
            self._progress("export", 1, total, "reference answers from PyTorch")
            maker = self._maker(subject, traced, todo)
            del subject  # its weights are in the file now
            gc.collect()
            made = {}
            for done, precision in enumerate(todo, start=2):
                self._progress("export", done, total, precision)
                spent_s = traced_s if precision is Precision.FP32 else 0.0
                made[precision] = maker.make(precision, marks[precision], spent_s)
        self._progress("export", total, total)
        return made

    def _trace(self, subject: Subject, path: Path) -> Subject:
        """Write the traced graph; the subject with the axes that the graph has.

        An image whose size may vary in PyTorch but not in a trace gets a fixed one, as the graph's inputs then say.
        """
        sizes = [axis for axis in subject.axes if axis.name in IMAGE_AXES]
        try:
            graph = trace(subject, opset=self._request.opset)
        except UserError:
            if not sizes:
                raise
            subject = fix_axes(subject, sizes)
            graph = trace(subject, opset=self._request.opset)
        self._run.begin()
        if self._checkpoint:
            self._run.link_checkpoint(self._checkpoint.directory)
        save_graph(graph, path, external_data_bytes=self._request.external_data_bytes)
        return subject

    def _maker(self, subject: Subject, traced: Path, todo: Sequence[Precision]) -> Maker:
        """Everything that is needed of PyTorch: its answers, the golden examples, and batches to observe."""
        examples, inputs = self._examples(subject)
        judged = reference(subject, self._answer(subject), examples, inputs)
        training = self._training(subject, judged.examples, todo)
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
            golden=self._write_golden(subject, judged.examples),
            task=self._task,
        )

    @contextmanager
    def _folder_of_trace(self) -> Iterator[Path]:
        """Where the traced graph lies: it is the fp32 variant, unless that one is fused."""
        if self._request.options.profile is Profile.PORTABLE:
            yield self._run.variant(Precision.FP32)
            return
        with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
            yield Path(folder)

    @property
    def _task(self) -> Task:
        return self._checkpoint.task if self._checkpoint else Task.MODULE

    def _subject(self) -> Subject:
        if self._checkpoint is None:
            return module_subject(cast(ModuleSource, self._request.model))
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
        if self._task is Task.TEXT_CLASSIFICATION and self._checkpoint:
            if self._checkpoint.activation is Activation.NONE:
                return Answer(answer.outputs, {})
            return replace(answer, independent=self._checkpoint.activation is Activation.SIGMOID)
        return answer

    def _metric(self) -> Metric | None:
        if self._checkpoint is None:
            return None
        return metric_for(self._task, problem=self._checkpoint.problem, labels=len(self._checkpoint.labels))

    def _examples(self, subject: Subject) -> tuple[ExampleSet, str]:
        if self._request.data is None:
            return own_examples(subject, self._checkpoint)
        return read_source(self._request.data, subject, self._checkpoint), self._request.data.path.name

    def _training(self, subject: Subject, judged: ExampleSet, todo: Sequence[Precision]) -> Training:
        """Training examples for the ranges, and others to choose between ways to calibrate."""
        source = self._request.calibration
        if source is None or not CALIBRATED & set(todo):
            return Training((), None)
        every = read_source(source, subject, self._checkpoint)
        check_apart(every, judged, [item.name for item in subject.inputs])
        picks = np.linspace(0, len(every) - 1, min(len(every), CALIBRATION_EXAMPLES + SELECTION_EXAMPLES)).astype(int)
        rows = np.random.default_rng(0).permutation(picks).tolist()
        ranged, rest = rows[:CALIBRATION_EXAMPLES], rows[CALIBRATION_EXAMPLES:]
        batches = tuple(
            every.batch(ranged[start : start + CALIBRATION_BATCH]) for start in range(0, len(ranged), CALIBRATION_BATCH)
        )
        return Training(batches, every.select(rest) if rest else None)

    def _write_golden(self, subject: Subject, examples: ExampleSet) -> Golden | None:
        """Examples over the whole range of lengths, each answered by the reference alone, for classified texts."""
        checkpoint = self._checkpoint
        if checkpoint is None or self._task is not Task.TEXT_CLASSIFICATION or "input_ids" not in examples.rows[0]:
            return None
        encoder = text_encoder(checkpoint.directory, text_limits(checkpoint))
        ours = [item["input_ids"] for item in encoder.encode(examples.titles)]
        theirs = [row["input_ids"].tolist() for row in examples.rows]
        if ours != theirs:
            self._check_tokenizer(checkpoint, examples, ours)
            return None  # pairs of texts, which golden.json has no place for yet
        by_length = sorted(range(len(examples)), key=lambda row: len(theirs[row]))
        picks = np.linspace(0, len(by_length) - 1, min(GOLDEN_EXAMPLES, len(by_length))).round().astype(int)
        golden = Golden(
            schema_version=1,
            checkpoint_sha256=checkpoint.sha256,
            tolerance=0.0,
            examples=tuple(
                GoldenExample(
                    text=examples.titles[row],
                    input_ids=tuple(theirs[row]),
                    logits=tuple(float(value) for value in subject.answer(examples.batch([row]))["logits"][0]),
                )
                for row in dict.fromkeys(by_length[pick] for pick in picks)
            ),
        )
        write_json(self._run.golden, golden)
        return golden

    @staticmethod
    def _check_tokenizer(checkpoint: Checkpoint, examples: ExampleSet, ours: Sequence[Sequence[int]]) -> None:
        """Refuse a tokenizer that gives other ids here than in transformers, as one whose two files disagree does."""
        tokenizer = load_tokenizer(checkpoint.directory)
        limit = text_limits(checkpoint).max_length_tokens
        for title, mine in zip(examples.titles, ours, strict=True):
            expected = tokenizer(title, truncation=True, max_length=limit)["input_ids"]
            if list(mine) != expected:
                raise UserError(
                    f"{checkpoint.directory / 'tokenizer.json'} gives the ids {list(mine)[:8]} for '{title[:40]}', "
                    f"transformers gives {expected[:8]}",
                    "save the tokenizer again with AutoTokenizer.from_pretrained(…).save_pretrained(folder)",
                )


def _as_traced(subject: Subject, path: Path) -> Subject:
    """The subject with the axes that a graph traced earlier has."""
    named = {axis for spec in inspect_graph(path).inputs for axis in spec.shape}
    return fix_axes(subject, [axis for axis in subject.axes if axis.name not in named])
