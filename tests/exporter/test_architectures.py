"""Every architecture of the table is exported, and its file compared with the model as transformers loads it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.task import Task
from exporter.export import export
from exporter.request import Request
from models.checkpoint import ONE_PASS
from tests.conftest import ROOT
from tests.exporter.architectures import ARCHITECTURES, MOST_TOKENS, Architecture, write_checkpoint
from tests.exporter.conftest import session

Arrays = dict[str, NDArray[Any]]

OUTPUTS = {
    Task.TEXT_CLASSIFICATION: ["logits"],
    Task.TOKEN_CLASSIFICATION: ["logits"],
    Task.QUESTION_ANSWERING: ["start_logits", "end_logits"],
    Task.FILL_MASK: ["logits"],
    Task.FEATURE_EXTRACTION: ["last_hidden_state"],
    Task.IMAGE_CLASSIFICATION: ["logits"],
    Task.OBJECT_DETECTION: ["logits", "pred_boxes"],
    Task.IMAGE_SEGMENTATION: ["logits"],
    Task.AUDIO_CLASSIFICATION: ["logits"],
    Task.SPEECH_RECOGNITION: ["logits"],
}
PER_TOKEN = {Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING, Task.FILL_MASK, Task.FEATURE_EXTRACTION}
TEXT_SHAPES = ((1, 1), (1, 7), (3, 5), (2, MOST_TOKENS))
ROWS = (1, 5, 4)
SIZES = {"height": (72, 75, 121), "width": (104, 67, 64), "frames": (16001, 20011, 17777)}
"""Sizes that the exporter has not tried itself, and none below the least of its own."""


def parameters() -> Iterator[Any]:
    """All of them, of which the first of each task are not exhaustive."""
    seen: set[Task] = set()
    for item in ARCHITECTURES:
        marks = [pytest.mark.exhaustive] if item.task in seen else []
        seen.add(item.task)
        yield pytest.param(item, id=item.name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(parameters()))
def test_the_file_answers_as_transformers_does_at_every_shape(architecture: Architecture, tmp_path: Path) -> None:
    folder = write_checkpoint(architecture, tmp_path / "checkpoint")
    (exported,) = export(Request(folder, tmp_path / "run", (Precision.FP32,)))
    variant, graph = exported.variant, onnx.load(exported.path)

    assert variant.passed, variant.reasons
    assert variant.task is architecture.task
    assert [item.name for item in graph.graph.output] == OUTPUTS[architecture.task]
    assert_nothing_of_the_builder(graph)
    shapes = {item.name: axes(item) for item in graph.graph.input}
    assert {item.name: list(item.shape) for item in variant.inputs} == shapes
    assert_axes(architecture, shapes)

    model = getattr(transformers, architecture.kind).from_pretrained(folder, attn_implementation="eager").eval()
    if architecture.task is Task.FILL_MASK:
        assert_stored_once(graph, model.get_input_embeddings().weight)
    opened = session(exported.path)
    expected: dict[str, list[NDArray[Any]]] = {}
    errors: dict[str, float] = dict.fromkeys(OUTPUTS[architecture.task], 0.0)
    for batch in batches(architecture, model.config, shapes):
        with torch.inference_mode():
            reference = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
        found = dict(zip(OUTPUTS[architecture.task], opened.run(None, batch), strict=True))
        for name, array in found.items():
            known = reference[name].numpy()
            assert array.shape == known.shape
            assert_output_axes(graph, name, array)
            kept = batch["attention_mask"].astype(bool) if architecture.task in PER_TOKEN else slice(None)
            expected.setdefault(name, []).append(known[kept])
            errors[name] = max(errors[name], float(np.abs(array[kept] - known[kept]).max()))
    for name, values in expected.items():
        scale = max(float(np.abs(array).max()) for array in values)
        assert errors[name] <= 1e-4 * scale, f"{name}: {errors[name] / scale}"
        assert_says_something(values, scale)


def batches(architecture: Architecture, config: Any, shapes: Mapping[str, list[int | str]]) -> Iterator[Arrays]:
    """Random inputs at every shape: texts with padded rows, images and audio at sizes that the exporter did not try."""
    draw = np.random.default_rng(7)
    if "input_ids" in shapes:
        for rows, length in TEXT_SHAPES:
            lengths = np.array([length, max(1, length // 2), 1])[:rows]
            mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
            ids = draw.integers(6, config.vocab_size, (rows, length))
            batch = {"input_ids": np.where(mask, ids, config.pad_token_id), "attention_mask": mask}
            if architecture.pairs:
                batch["token_type_ids"] = draw.integers(0, 2, (rows, length))
            yield batch
        return
    ((name, shape),) = shapes.items()
    for number, rows in enumerate(ROWS):
        sizes = {"batch": rows} | {axis: SIZES[axis][number] for axis in architecture.axes}
        size = [sizes[axis] if isinstance(axis, str) else axis for axis in shape]
        yield {name: draw.standard_normal(size).astype(np.float32)}


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def assert_axes(architecture: Architecture, shapes: Mapping[str, list[int | str]]) -> None:
    """Every input has the batch and the axes of the table by name, and no others."""
    texts = {"input_ids", "attention_mask", *(["token_type_ids"] if architecture.pairs else [])}
    assert set(shapes) in (texts, {"pixel_values"}, {"input_values"})
    for shape in shapes.values():
        assert [axis for axis in shape if isinstance(axis, str)] == ["batch", *architecture.axes]
        assert all(axis for axis in shape)


def assert_output_axes(graph: onnx.ModelProto, name: str, array: NDArray[Any]) -> None:
    """What the file says about an output's axes is true: the batch by name, and each number the real size."""
    (declared,) = [axes(item) for item in graph.graph.output if item.name == name]
    assert declared[0] == "batch"
    assert [size if isinstance(axis, str) else axis for axis, size in zip(declared, array.shape, strict=True)] == list(
        array.shape
    )


def assert_nothing_of_the_builder(graph: onnx.ModelProto) -> None:
    inner = graph.graph
    parts = (graph, inner, *inner.node, *inner.input, *inner.output, *inner.value_info, *inner.initializer)
    assert not any(part.doc_string or part.metadata_props for part in parts)
    assert not graph.functions
    assert {item.domain for item in graph.opset_import} == {""}


def assert_stored_once(graph: onnx.ModelProto, embeddings: torch.Tensor) -> None:
    """The matrix that embeds tokens is also the one that scores them, and is in the file one time."""
    known = embeddings.detach().numpy()
    arrays = [onnx.numpy_helper.to_array(item) for item in graph.graph.initializer]
    found = [array for array in arrays if sorted(array.shape) == sorted(known.shape)]
    assert len(found) == 1
    assert np.array_equal(found[0] if found[0].shape == known.shape else found[0].T, known)


def assert_says_something(values: list[NDArray[Any]], scale: float) -> None:
    """Outputs that are all zero, or the same for every input, would agree whatever the graph does."""
    first = np.stack([array.reshape(-1)[: min(part.size for part in values)] for array in values])
    assert scale > 0.05
    assert np.ptp(first, axis=0).max() > 0.05 * scale


def test_the_document_has_every_architecture_and_no_other() -> None:
    lines = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    written = [(name, kind, task, varying) for name, kind, task, varying, _, _ in rows[2:]]
    assert written == [
        (item.name, item.kind, item.task.value, ", ".join(("batch", *item.axes))) for item in ARCHITECTURES
    ]


def test_the_table_covers_every_task_of_checkpoints_and_32_architectures() -> None:
    assert {item.task for item in ARCHITECTURES} == set(ONE_PASS) - {Task.MODULE} == set(OUTPUTS)
    assert len({item.kind for item in ARCHITECTURES}) == len(ARCHITECTURES) >= 32
