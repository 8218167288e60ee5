"""PyTorch's int8: what is quantised, where its ranges come from, and what it says where it cannot."""

import importlib.util
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifact.precision import Precision
from errors import UserError
from runtimes import torch_int8
from runtimes.base import Candidate
from runtimes.options import TorchOptions
from runtimes.registry import open_runtime
from runtimes.torch_cpu import EngineRuntime, probe
from tests.cpu import EXACT
from tests.runtimes.conftest import BATCH

STATIC, DYNAMIC = Precision.INT8_STATIC, Precision.INT8_DYNAMIC
OTHER = {**BATCH, "input_ids": BATCH["input_ids"] + np.arange(8) * 5}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def linear_layers(checkpoint: Path) -> int:
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(checkpoint)
    return sum(isinstance(module, torch.nn.Linear) for module in model.modules())


def kernels(model: Any) -> list[str]:
    return [str(node.target) for node in model.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC])
def test_the_weights_of_every_linear_layer_are_int8(tiny_checkpoint: Path, precision: Precision) -> None:
    with EngineRuntime(tiny_checkpoint, precision, 1, calibration=[BATCH]) as runtime:
        int8 = [value for value in runtime.model.state_dict().values() if value.dtype is torch.int8 and value.ndim == 2]
        assert len(int8) == linear_layers(tiny_checkpoint)
        found_while_running = sum("choose_qparams" in name for name in kernels(runtime.model))
        assert (found_while_running > 0) is (precision is DYNAMIC)
        assert runtime.info.dtype == precision.value


@pytest.mark.parametrize(("precision", "is_moved"), [(STATIC, True), (DYNAMIC, False)])
def test_only_static_ranges_come_from_the_calibration(
    tiny_checkpoint: Path, precision: Precision, is_moved: bool
) -> None:
    answers = []
    for calibration in ([BATCH], [OTHER]):
        with EngineRuntime(tiny_checkpoint, precision, 1, calibration=calibration) as runtime:
            answers.append(runtime.run(OTHER)["logits"])
    assert (not np.array_equal(answers[0], answers[1])) is is_moved


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint: Path) -> Iterator[EngineRuntime]:
    with EngineRuntime(tiny_checkpoint, STATIC, 1, TorchOptions(compile=True), [BATCH, OTHER]) as runtime:
        yield runtime


@pytest.mark.exhaustive
@EXACT
def test_compiled_kernels_round_as_the_quantised_graph_does(tiny_checkpoint: Path, compiled: EngineRuntime) -> None:
    with EngineRuntime(tiny_checkpoint, STATIC, 1, calibration=[BATCH, OTHER]) as runtime:
        expected = [runtime.run(batch)["logits"] for batch in (BATCH, OTHER)]
    for batch, logits in zip((BATCH, OTHER), expected, strict=True):
        np.testing.assert_allclose(compiled.run(batch)["logits"], logits, atol=1e-4)
    with pytest.raises(RuntimeError, match="not open"):
        _ = compiled.model  # its weights would be held twice


@pytest.mark.exhaustive
@pytest.mark.parametrize("length", [65, 66, 200])
def test_compiled_kernels_do_not_read_on_behind_the_table_of_positions(compiled: EngineRuntime, length: int) -> None:
    batch = {name: np.ones((2, length), dtype=np.int64) for name in BATCH}
    with pytest.raises(UserError, match=f"{length} tokens, and the model takes at most 64"):
        compiled.run(batch)


def test_a_model_without_a_table_of_positions_takes_any_length() -> None:
    class Bag(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            rows: torch.Tensor = self.table(batch["input_ids"])
            return rows.mean(1)

    forward = torch_int8.compile_ahead(Bag().eval(), ["input_ids"])
    assert forward({"input_ids": torch.ones((2, 3000), dtype=torch.int64)}).shape == (2, 4)


def test_the_batch_that_a_model_is_traced_with_does_not_widen_its_ranges(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Sequence[str]] = []
    example = torch_int8._example

    def counted(names: Sequence[str]) -> Mapping[str, torch.Tensor]:
        made.append(names)
        return example(names)

    monkeypatch.setattr(torch_int8, "_example", counted)
    with EngineRuntime(tiny_checkpoint, STATIC, 1, calibration=[OTHER]):
        assert len(made) == 1  # to trace, not to observe


def test_a_static_range_needs_training_examples(tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="torch-cpu/int8-static needs training examples") as caught:
        open_runtime(Candidate("torch-cpu", STATIC), tiny_checkpoint, 1)
    assert "--calibration" in caught.value.hint


def test_what_cannot_be_traced_is_one_sentence(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fickle(torch.nn.Linear):
        def forward(self, input_ids: torch.Tensor, **rest: torch.Tensor) -> Any:  # type: ignore[override]
            return input_ids[: int(input_ids.sum())] if input_ids.sum() > 3 else input_ids

    monkeypatch.setattr("models.checkpoint.load_model", lambda directory, task: Fickle(2, 2))
    runtime = EngineRuntime(tiny_checkpoint, DYNAMIC, 1)
    with pytest.raises(UserError, match="PyTorch cannot quantise this model: ") as caught, runtime:
        pass
    assert "\n" not in caught.value.message
    with pytest.raises(RuntimeError, match="not open"):
        runtime.run(BATCH)


def test_without_torchao_int8_is_what_pytorch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(torch_int8, "find_spec", lambda name: None if name == "torchao" else real(name))
    found = probe()
    assert found.available
    for precision in (STATIC, DYNAMIC):
        lack = found.lack_of(Candidate("torch-cpu", precision, ("compile",)))
        assert lack
        assert (lack.reason, lack.remedy) == ("torchao is not installed", "pip install 'steelyard[torchao]'")
    assert not found.lack_of(Candidate("torch-cpu", Precision.BF16))


def test_on_another_kind_of_cpu_int8_is_what_pytorch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    lack = probe().lack_of(Candidate("torch-cpu", DYNAMIC))
    assert lack
    assert "this CPU is aarch64" in lack.reason
