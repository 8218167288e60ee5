import getpass
import socket
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from artifact.task import Task
from errors import UserError
from exporter import trace as traced
from exporter.clean import clean, strip
from exporter.subject import BATCH, Axis, Filling, Input, Subject
from exporter.trace import trace
from tests.exporter.conftest import close, onnx_logits, tokenize, torch_logits
from tests.exporter.graphs import as_bytes, graph, node, run

REFUSED = Exception  # onnxruntime's own errors derive from nothing else
TEXTS = ["a warm and funny film", "dull, slow and far too long, and i want my two hours back", "not bad"]


def _random(rows: int, length: int) -> dict[str, NDArray[np.int64]]:
    draw = np.random.default_rng(rows * 100 + length)
    return {
        "input_ids": draw.integers(5, 60, (rows, length)),
        "token_type_ids": draw.integers(0, 2, (rows, length)),
        "attention_mask": np.ones((rows, length), dtype=np.int64),
    }


@pytest.fixture(scope="module")
def model(traced_bytes: bytes) -> onnx.ModelProto:
    return onnx.load_from_string(traced_bytes)


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def test_every_input_has_the_two_named_axes(model: onnx.ModelProto) -> None:
    assert _shapes((*model.graph.input, *model.graph.output)) == {
        "input_ids": ["batch", "sequence"],
        "token_type_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "logits": ["batch", 2],
    }


def test_inner_shapes_name_no_other_axes(model: onnx.ModelProto) -> None:
    found = {dim for shape in _shapes(model.graph.value_info).values() for dim in shape if isinstance(dim, str)}
    assert found == {"batch", "sequence"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (2, 64), (2, 8)])
def test_every_shape_gives_pytorchs_logits(tiny_checkpoint: Path, traced_path: Path, shape: tuple[int, int]) -> None:
    batch = _random(*shape)
    assert close(onnx_logits(traced_path, batch), torch_logits(tiny_checkpoint, batch))


def test_onnxs_own_reference_gives_pytorchs_logits(tiny_checkpoint: Path, traced_path: Path) -> None:
    batch = _random(2, 6)
    batch["attention_mask"][1, 4:] = 0
    outputs = np.asarray(ReferenceEvaluator(str(traced_path)).run(["logits"], batch))
    assert close(outputs[0], torch_logits(tiny_checkpoint, batch))


def test_padding_changes_nothing_and_rows_may_be_permuted(tiny_checkpoint: Path, traced_path: Path) -> None:
    batch = tokenize(tiny_checkpoint, TEXTS)
    assert (batch["attention_mask"] == 0).any()
    together = onnx_logits(traced_path, batch)
    assert close(together, torch_logits(tiny_checkpoint, batch))
    alone = np.concatenate([onnx_logits(traced_path, tokenize(tiny_checkpoint, [text])) for text in TEXTS])
    assert close(together, alone)
    turned = onnx_logits(traced_path, {name: array[::-1].copy() for name, array in batch.items()})
    assert close(turned[::-1], together)


def test_a_fully_padded_row_gives_numbers_and_leaves_the_others_alone(tiny_checkpoint: Path, traced_path: Path) -> None:
    batch = _random(3, 6)
    expected = torch_logits(tiny_checkpoint, batch)
    batch["attention_mask"][1] = 0
    logits = onnx_logits(traced_path, batch)
    assert np.isfinite(logits).all()
    assert close(logits[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids"])
@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (2, 4)])
def test_an_input_smaller_than_the_ids_is_refused(traced_path: Path, name: str, shape: tuple[int, int]) -> None:
    batch = _random(2, 5) | {name: np.ones(shape, dtype=np.int64)}
    with pytest.raises(REFUSED, match="node"):
        onnx_logits(traced_path, batch)


def test_a_text_longer_than_the_models_positions_is_refused(traced_path: Path) -> None:
    with pytest.raises(REFUSED, match="64 by 65"):
        onnx_logits(traced_path, _random(1, 65))


def test_nodes_and_weights_are_named_after_modules(model: onnx.ModelProto, tiny_subject: Subject) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in tiny_subject.module.named_modules()}
    dense = [node.name.rpartition("/")[0] for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert set(dense) <= modules
    linear = {name for name, module in tiny_subject.module.named_modules() if isinstance(module, torch.nn.Linear)}
    assert linear <= set(dense)
    assert {node.name.rpartition("/")[0] for node in model.graph.node} <= modules | {""}
    assert not [tensor.name for tensor in model.graph.initializer if tensor.name.startswith("val_") and tensor.dims[1:]]


def test_no_byte_tells_where_or_by_whom_it_was_made(model: onnx.ModelProto, tiny_checkpoint: Path) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        tensor.raw_data = b""  # in which any few letters meet by chance
    data = bare.SerializeToString().lower()
    secrets = [
        "/root",
        "/work",
        "/usr",
        "/home",
        "/tmp",
        ".py",
        "site-packages",
        "stack_trace",
        "pkg.torch",
        "exporter/",
    ]
    secrets += [str(Path.cwd()), str(Path.home()), str(tiny_checkpoint), socket.gethostname(), getpass.getuser()]
    assert [secret for secret in secrets if len(secret) > 2 and secret.lower().encode() in data] == []
    assert (bare.producer_name, bare.producer_version) == ("steelyard", "")
    assert (bare.graph.name, bare.doc_string, bare.graph.doc_string) == ("model", "", "")
    assert not bare.metadata_props
    assert not bare.graph.metadata_props
    parts = (*bare.graph.node, *bare.graph.input, *bare.graph.output, *bare.graph.value_info, *bare.graph.initializer)
    assert not any(part.metadata_props or part.doc_string for part in parts)


def test_only_opsets_that_nodes_use_are_imported_and_the_ir_is_theirs(model: onnx.ModelProto) -> None:
    (opset,) = model.opset_import
    assert opset.domain == ""
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    first = min(row[1] for row in onnx.helper.VERSION_TABLE if row[2] >= opset.version)  # what onnx released it with
    assert model.ir_version == first


def test_a_domain_that_nothing_uses_goes() -> None:
    made = graph([node("Relu", ["x"], "y")], {"x": (2,)}, {"y": (2,)}, {})
    made.opset_imports["pkg.onnxscript.torch_lib"] = 1
    strip(made)
    assert [item.domain for item in onnx.load_from_string(as_bytes(made)).opset_import] == [""]


class Net(torch.nn.Module):
    """Two layers; `steps` fixes the axis that the trace must keep open."""

    def __init__(self, steps: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
        self.steps = steps

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = x if self.steps is None else x.reshape(x.shape[0], self.steps, 6)
        return {"scores": self.second(torch.relu(self.first(x))).softmax(-1), "unused": x + 1}


def _net(module: torch.nn.Module, *outputs: str) -> Subject:
    steps = Axis("steps", (1, 3, 6, 9))
    item = Input("x", "float32", (BATCH, steps, 6), Filling.NORMAL)
    return Subject("Net", Task.MODULE, module.eval(), (item,), outputs, is_transformers=False)


def test_a_module_of_ones_own_keeps_only_the_outputs_that_are_wanted() -> None:
    subject = _net(Net(), "scores")
    made = trace(subject)
    loaded = onnx.load_from_string(as_bytes(made))
    assert _shapes((*loaded.graph.input, *loaded.graph.output)) == {
        "x": ["batch", "steps", 6],
        "scores": ["batch", "steps", 3],
    }
    assert [node.name for node in loaded.graph.node if node.op_type == "MatMul"] == ["first/MatMul", "second/MatMul"]
    for sizes in ((1, 1), (2, 5), (7, 3)):
        x = np.random.default_rng(0).standard_normal((*sizes, 6)).astype(np.float32)
        with torch.inference_mode():
            expected = subject.module(torch.from_numpy(x))["scores"].numpy()
        assert run(made, {"x": x})[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_module_that_fixes_an_axis_is_an_error() -> None:
    with pytest.raises(UserError, match="the axis 'steps' of input 'x' became static in the trace"):
        trace(_net(Net(steps=4), "scores"))


@pytest.mark.parametrize(("shape", "axis"), [(("b", 4, 6), "steps"), ((2, "s", 6), "batch")])
def test_a_static_axis_is_named(shape: tuple[int | str, ...], axis: str) -> None:
    made = graph([node("Relu", ["x"], "scores")], {"x": shape}, {"scores": shape}, {})
    with pytest.raises(UserError, match=f"the axis '{axis}' of input 'x' became static in the trace"):
        clean(made, _net(Net(), "scores"))


def test_an_output_that_the_graph_lacks_is_an_error() -> None:
    with pytest.raises(UserError, match="the traced graph gives scores, unused, and not logits"):
        trace(_net(Net(), "logits"))


def test_an_opset_may_be_asked_for() -> None:
    loaded = onnx.load_from_string(as_bytes(trace(_net(Net(), "scores"), opset=18)))
    assert ([item.version for item in loaded.opset_import], loaded.ir_version) == ([18], 8)


def test_the_module_is_left_as_it_was() -> None:
    module = Net().train()
    subject = Subject("Net", Task.MODULE, module, _net(Net(), "scores").inputs, ("scores",), is_transformers=False)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    forward = module.forward
    trace(subject)
    assert module.training
    assert module.forward == forward
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_a_transformers_model_is_left_as_it_was(
    traced_bytes: bytes, tiny_subject: Subject, tiny_checkpoint: Path
) -> None:
    """After the trace that the session's fixture made of it."""
    from transformers import AutoModelForSequenceClassification

    fresh = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint)
    assert not any(module.training for module in tiny_subject.module.modules())
    modules = list(tiny_subject.module.modules())
    assert all(module.forward.__func__ is type(module).forward for module in modules)
    assert tiny_subject.module.config._attn_implementation == fresh.config._attn_implementation
    known = fresh.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in tiny_subject.module.state_dict().items())


@pytest.mark.parametrize("is_transformers", [True, False])
def test_a_model_that_cannot_be_traced_is_named(monkeypatch: pytest.MonkeyPatch, *, is_transformers: bool) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("a loop over data\nand more")  # as torch does for what it cannot trace

    monkeypatch.setattr(traced, "_trace_transformers" if is_transformers else "_trace_module", fail)
    subject = _net(Net().train(), "scores")
    subject = Subject("Net", subject.task, subject.module, subject.inputs, subject.outputs, is_transformers)
    with pytest.raises(UserError, match=r"^Net cannot be traced: a loop over data$"):
        trace(subject)
