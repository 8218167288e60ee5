"""Modules from a user's own file: a recommender, a policy, a reader of series, and everything that can be wrong."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file, save_model

from artifact.precision import Precision
from artifact.task import Task
from errors import UserError
from exporter.export import Exported, export
from exporter.from_module import module_sha256, module_subject
from exporter.request import ModuleSource, Request, Source
from models.rows import Columns
from tests.exporter.conftest import session

MODULES = """
import torch
from torch import nn


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(50, 32), nn.Embedding(80, 32)
        self.hidden, self.rating, self.click = nn.Linear(67, 64), nn.Linear(64, 1), nn.Linear(64, 3)

    def forward(self, user, item, price):
        both = torch.cat([self.users(user), self.items(item), price], dim=-1)
        hidden = torch.relu(self.hidden(both))
        return {"rating": self.rating(hidden), "click": self.click(hidden)}


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.action, self.worth = nn.Linear(6, 32), nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, observation):
        state = torch.tanh(self.body(observation))
        return self.action(state), self.worth(state).squeeze(-1)


class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(3, 16, 3, padding=1)

    def forward(self, values, weights):
        mixed = torch.relu(self.one(values.transpose(1, 2))).transpose(1, 2) * weights.unsqueeze(-1)
        return mixed.amax(dim=1)


def recommender():
    torch.manual_seed(0)
    sample = {"user": torch.arange(4), "item": torch.arange(4) * 20, "price": torch.rand(4, 3)}
    return Recommender(), sample


def policy():
    torch.manual_seed(1)
    return Policy().train(), torch.randn(5, 6)


def series():
    torch.manual_seed(2)
    axes = {"values": {1: "steps"}, "weights": {1: "steps"}}
    return Series(), (torch.randn(2, 7, 3), torch.rand(2, 7)), axes
"""
ALL_BUT_STATIC = tuple(precision for precision in Precision if precision not in (Precision.TF32, Precision.INT8_STATIC))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modules") / "nets.py"
    path.write_text(MODULES)
    return path


def rated(path: Path, rows: int, seed: int) -> Path:
    """A `.npz` of the recommender's inputs."""
    draw = np.random.default_rng(seed)
    np.savez(
        path,
        user=draw.integers(0, 50, rows),
        item=draw.integers(0, 80, rows),
        price=draw.random((rows, 3), dtype=np.float32),
    )
    return path


def source(path: Path) -> Source:
    return Source(path, Columns())


def answers(file: Path, function: str, batch: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What PyTorch gives for a batch, from the file itself."""
    module = runpy.run_path(str(file))[function]()[0].eval()
    with torch.inference_mode():
        found = module(**{name: torch.from_numpy(array) for name, array in batch.items()})
    values = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else (found,)
    return [value.numpy() for value in values]


def assert_close(found: list[NDArray[Any]], expected: list[NDArray[Any]], fraction: float = 1e-4) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() <= fraction * np.abs(theirs).max()


def axes(path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(path).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


# What is exported


@pytest.fixture(scope="module")
def recommended(file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Exported]:
    """The recommender at every precision but int8-static, judged by examples from a `.npz` file."""
    out = tmp_path_factory.mktemp("recommender")
    data = source(rated(out / "held_out.npz", 60, seed=1))
    request = Request(ModuleSource(file, "recommender"), out / "run", ALL_BUT_STATIC, data=data)
    return {item.variant.precision: item for item in export(request)}


@pytest.mark.slow
def test_every_precision_of_a_recommender_passes(recommended: dict[Precision, Exported]) -> None:
    assert set(recommended) == set(ALL_BUT_STATIC)
    assert {precision: item.variant.reasons for precision, item in recommended.items()} == dict.fromkeys(
        ALL_BUT_STATIC, ()
    )
    parity = recommended[Precision.FP32].variant.parity
    assert (parity.inputs, parity.examples) == ("held_out.npz", 60)
    assert recommended[Precision.FP32].variant.task is Task.MODULE


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 6, 33])
def test_a_recommenders_file_answers_as_pytorch_at_other_batch_sizes(
    file: Path, recommended: dict[Precision, Exported], tmp_path: Path, rows: int
) -> None:
    path = recommended[Precision.FP32].path
    assert axes(path) == {
        "user": ["batch"],
        "item": ["batch"],
        "price": ["batch", 3],
        "rating": ["batch", 1],
        "click": ["batch", 3],
    }
    batch = dict(np.load(rated(tmp_path / "other.npz", rows, seed=rows)))
    assert_close(session(path).run(["rating", "click"], batch), answers(file, "recommender", batch))


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.INT8_DYNAMIC, Precision.INT4])
def test_a_quantised_recommender_is_still_recognised(
    file: Path, recommended: dict[Precision, Exported], tmp_path: Path, precision: Precision
) -> None:
    batch = dict(np.load(rated(tmp_path / "other.npz", 33, seed=3)))
    found = session(recommended[precision].path).run(["rating", "click"], batch)
    assert_close(found, answers(file, "recommender", batch), fraction=0.2)
    assert recommended[precision].path.stat().st_size < 0.8 * recommended[Precision.FP32].path.stat().st_size


@pytest.mark.slow
def test_a_policys_tuple_becomes_numbered_outputs(file: Path, tmp_path: Path) -> None:
    (exported,) = export(Request(ModuleSource(file, "policy"), tmp_path / "run", (Precision.FP32,)))
    assert exported.variant.passed, exported.variant.reasons
    assert axes(exported.path) == {"observation": ["batch", 6], "output_0": ["batch", 4], "output_1": ["batch"]}
    for rows in (1, 9):
        batch = {"observation": np.random.default_rng(rows).standard_normal((rows, 6)).astype(np.float32)}
        assert_close(session(exported.path).run(None, batch), answers(file, "policy", batch))


@pytest.mark.slow
def test_a_named_axis_varies_and_is_shared(file: Path, tmp_path: Path) -> None:
    (exported,) = export(Request(ModuleSource(file, "series"), tmp_path / "run", (Precision.FP32,)))
    assert exported.variant.passed, exported.variant.reasons
    assert axes(exported.path) == {
        "values": ["batch", "steps", 3],
        "weights": ["batch", "steps"],
        "output": ["batch", 16],
    }
    for rows, steps in ((1, 1), (4, 2), (3, 23)):
        draw = np.random.default_rng(steps)
        batch = {
            "values": draw.standard_normal((rows, steps, 3)).astype(np.float32),
            "weights": draw.random((rows, steps), dtype=np.float32),
        }
        assert_close(session(exported.path).run(None, batch), answers(file, "series", batch))


@pytest.mark.slow
def test_weights_come_from_a_safetensors_file(file: Path, tmp_path: Path) -> None:
    module = runpy.run_path(str(file))["policy"]()[0].eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-2)
    save_model(module, str(tmp_path / "weights.safetensors"))
    given = ModuleSource.parse(f"{file}:policy", tmp_path / "weights.safetensors")
    (exported,) = export(Request(given, tmp_path / "run", (Precision.FP32,)))
    bare = ModuleSource.parse(f"{file}:policy")
    assert exported.variant.checkpoint_sha256 != module_sha256(bare, module_subject(bare))
    assert exported.variant.checkpoint_sha256 == module_sha256(given, module_subject(given))
    batch = {"observation": np.random.default_rng(5).standard_normal((3, 6)).astype(np.float32)}
    with torch.inference_mode():
        expected = [value.numpy() for value in module(torch.from_numpy(batch["observation"]))]
    assert_close(session(exported.path).run(None, batch), expected)


# Calibration


@pytest.mark.slow
def test_int8_static_takes_its_ranges_from_a_calibration_file(file: Path, tmp_path: Path) -> None:
    request = Request(
        ModuleSource(file, "recommender"),
        tmp_path / "run",
        (Precision.INT8_STATIC,),
        data=source(rated(tmp_path / "held_out.npz", 60, seed=1)),
        calibration=source(rated(tmp_path / "training.npz", 200, seed=2)),
    )
    (exported,) = export(request)
    assert exported.variant.passed, exported.variant.reasons
    assert exported.variant.recipe.calibration_examples == 67  # a third of them, rounded up
    batch = dict(np.load(rated(tmp_path / "other.npz", 33, seed=3)))
    found = session(exported.path).run(["rating", "click"], batch)
    assert_close(found, answers(file, "recommender", batch), fraction=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["overlapping", "empty"])
def test_a_calibration_that_overlaps_or_is_empty_is_refused(file: Path, tmp_path: Path, kind: str) -> None:
    held_out = rated(tmp_path / "held_out.npz", 30, seed=1)
    known = dict(np.load(held_out))
    others = dict(np.load(rated(tmp_path / "others.npz", 20, seed=2)))
    wrong: dict[str, dict[str, Any]] = {
        "overlapping": {name: np.concatenate([others[name], known[name][3:5]]) for name in known},
        "empty": {name: array[:0] for name, array in known.items()},
    }
    np.savez(tmp_path / "training.npz", **wrong[kind])
    request = Request(
        ModuleSource(file, "recommender"),
        tmp_path / "run",
        (Precision.INT8_STATIC,),
        data=source(held_out),
        calibration=source(tmp_path / "training.npz"),
    )
    message = {"overlapping": "2 examples are both in the calibration and in the evaluation", "empty": "no examples"}
    with pytest.raises(UserError, match=message[kind]):
        export(request)


def test_int8_static_without_calibration_is_refused_before_anything_is_made(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="int8-static needs examples"):
        export(Request(ModuleSource(file, "recommender"), tmp_path / "run", (Precision.INT8_STATIC,)))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_data_without_one_of_the_inputs_is_refused(file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", user=np.arange(3), item=np.arange(3))
    request = Request(
        ModuleSource(file, "recommender"), tmp_path / "run", (Precision.FP32,), data=source(tmp_path / "data.npz")
    )
    with pytest.raises(UserError, match="has item, user, Recommender takes item, price, user"):
        export(request)


# What is refused

HEAD = "import torch\nfrom torch import nn\n"
LINE = "class Net(nn.Linear):\n    def forward(self, x):\n        return super().forward(x)\n"
NET = f"{HEAD}{LINE}def build():\n    return "
WRONG = {
    "no function": (f"{HEAD}build = 3\n", "has no function 'build'"),
    "the file raises": ("import not_there\n", "cannot be loaded: ModuleNotFoundError"),
    "the function raises": ("def build():\n    raise OSError('no disk')\n", r"build\(\) fails: OSError: no disk"),
    "nothing": ("def build():\n    pass\n", r"build\(\) returns a NoneType"),
    "a module alone": (f"{NET}Net(2, 2)\n", r"build\(\) returns a Net"),
    "four things": (f"{NET}(Net(2, 2), torch.ones(2, 2), {{}}, 1)\n", r"build\(\) returns a tuple of 4"),
    "a sample of text": (f"{NET}(Net(2, 2), 'x')\n", "'x' is no float32"),
    "a sample of a number": (f"{NET}(Net(2, 2), 3)\n", "the sample is a int"),
    "a sample of nothing": (f"{NET}(Net(2, 2), ())\n", "the sample is a dict"),
    "one row": (f"{NET}(Net(2, 2), torch.ones(1, 2))\n", r"'x' has the shape \(1, 2\)"),
    "no rows": (f"{NET}(Net(2, 2), torch.tensor(1.0))\n", r"'x' has the shape \(\)"),
    "float64": (f"{NET}(Net(2, 2), torch.ones(2, 2).double())\n", "'x' is no float32 or int64"),
    "int32": (f"{NET}(Net(2, 2), torch.ones(2, 2).int())\n", "'x' is no float32 or int64"),
    "an axis of one": (f"{NET}(Net(2, 2), torch.ones(2, 1, 2), {{'x': {{1: 'n'}}}})\n", "axis 1 of 'x' has the size 1"),
    "an axis too far": (f"{NET}(Net(2, 2), torch.ones(2, 2), {{'x': {{4: 'n'}}}})\n", "axis 4 of 'x' has the size 0"),
    "axes of no input": (f"{NET}(Net(2, 2), torch.ones(2, 2), {{'y': {{1: 'n'}}}})\n", "'y', which is no input"),
    "NaN weights": (
        f"{HEAD}{LINE}def build():\n    net = Net(2, 2)\n    net.bias.data[1] = float('nan')\n"
        "    return net, torch.ones(2, 2)\n",
        "'bias' has 1 values that are NaN",
    ),
    "another size": (f"{NET}(Net(3, 2), torch.ones(2, 2))\n", "does not take its own sample: RuntimeError"),
    "too many inputs": (f"{NET}(Net(2, 2), (torch.ones(2, 2), torch.ones(2, 2)))\n", "2 tensors"),
    "too few inputs": (f"{NET}(nn.Bilinear(2, 2, 2), torch.ones(2, 2))\n", "does not take its own sample: TypeError"),
    "an unknown input": (f"{NET}(Net(2, 2), {{'y': torch.ones(2, 2)}})\n", "does not take its own sample: TypeError"),
    "a text as output": (
        f"{HEAD}class Net(nn.Linear):\n    def forward(self, x):\n        return 'yes'\n"
        "def build():\n    return Net(2, 2), torch.ones(2, 2)\n",
        "returns a str",
    ),
    "an output without rows": (
        f"{HEAD}class Net(nn.Linear):\n    def forward(self, x):\n        return super().forward(x).mean()\n"
        "def build():\n    return Net(2, 2), torch.ones(2, 2)\n",
        r"'output' has the shape \(\)",
    ),
    "unequal rows": (
        f"{HEAD}class Net(nn.Linear):\n    def forward(self, x, y):\n        return super().forward(x) + y.sum()\n"
        "def build():\n    return Net(2, 2), (torch.ones(2, 2), torch.ones(3, 2))\n",
        "2 and 3 rows",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(UserError, match=message):
        module_subject(ModuleSource.parse(f"{tmp_path / 'net.py'}:build"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gone.py:build", "gone.py does not exist"),
        ("build", "'build'"),
        ("nets.py:", "'nets.py:'"),
        ("nets.py:two words", "two words"),
    ],
)
def test_what_names_no_function_in_a_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModuleSource.parse(text)


def test_weights_that_are_no_safetensors_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.pt is not a \.safetensors file"):
        ModuleSource.parse(f"{file}:policy", tmp_path / "weights.pt")


@pytest.mark.parametrize("shape", [(32, 7), None], ids=["shape", "names"])
def test_weights_that_do_not_fit_are_refused(file: Path, tmp_path: Path, shape: tuple[int, int] | None) -> None:
    weights = dict(runpy.run_path(str(file))["policy"]()[0].state_dict())
    if shape:
        weights["body.weight"] = torch.zeros(shape)
    else:
        del weights["worth.bias"]
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors does not fit"):
        module_subject(ModuleSource(file, "policy", tmp_path / "weights.safetensors"))


def test_weights_with_nan_are_refused(file: Path, tmp_path: Path) -> None:
    weights = dict(runpy.run_path(str(file))["policy"]()[0].state_dict())
    weights["action.bias"] = torch.full((4,), torch.nan)
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"'action\.bias' has 4 values"):
        module_subject(ModuleSource(file, "policy", tmp_path / "weights.safetensors"))


def test_a_module_is_put_into_eval_mode_and_fp32(file: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"{NET}(Net(2, 2).double().train(), torch.ones(2, 2))\n")
    found = module_subject(ModuleSource(tmp_path / "net.py", "build"))
    assert not found.module.training
    assert {parameter.dtype for parameter in found.module.parameters()} == {torch.float32}
    assert not module_subject(ModuleSource(file, "policy")).module.training
