import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from artifact.precision import Precision
from artifact.variant import Variant
from exporter.derive import Choice, Material
from exporter.export import export, failures
from exporter.request import Request
from exporter.rescue import Damage, fewest, most_to_return, rank_by_damage, returned
from exporter.save import save_graph
from tests.cpu import EXACT
from tests.exporter.conftest import close, onnx_logits, tokenize, torch_logits
from tests.exporter.graphs import graph, node, random

INT8 = Precision.INT8_DYNAMIC
PLANTED = "bert.encoder.layer.0.attention.output.dense"


def test_the_fewest_are_found_for_every_monotone_rule() -> None:
    for most in range(1, 21):
        for least in range(1, most + 2):  # passes from `least` on; never, where that is beyond `most`
            asked: list[int] = []

            def passes(count: int, least: int = least, asked: list[int] = asked) -> bool:
                asked.append(count)
                return count >= least

            found = fewest(passes, most)
            assert found == next((count for count in range(1, most + 1) if count >= least), None)
            assert len(asked) == len(set(asked))  # each attempt writes a file
            assert all(1 <= count <= most for count in asked)
            assert len(asked) <= 2 * np.log2(most) + 2
            assert found is None or found in asked


def test_what_is_returned_has_passed_even_if_the_rule_is_not_monotone() -> None:
    for bits in range(1, 2**6):
        rule = [bool(bits >> place & 1) for place in range(6)]
        found = fewest(lambda count: rule[count - 1], 6)  # noqa: B023  # called before the next rule
        assert found is None or rule[found - 1]


def _damages(count: int) -> list[Damage]:
    return [Damage(f"layer{place}", 1.0 - place / 100) for place in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_half_of_the_work_stays_in_fewer_bits(seed: int) -> None:
    draw = np.random.default_rng(seed)
    damages = _damages(int(draw.integers(1, 12)))
    macs = {damage.layer: int(draw.integers(0, 50)) for damage in damages}
    if not any(macs.values()):
        macs["layer0"] = 1
    total = sum(macs.values())
    allowed = [
        count for count in range(len(damages)) if sum(macs[damage.layer] for damage in damages[count:]) >= total / 2
    ]
    assert most_to_return(damages, macs) == max(allowed)


def test_tables_do_no_work_and_may_all_go_but_one() -> None:
    assert most_to_return(_damages(4), {}) == 3
    assert most_to_return(_damages(1), {}) == 0
    assert most_to_return(_damages(3), {"layer2": 9}) == 2  # the two first are free, the third is all the work


def test_layers_that_are_returned_say_why() -> None:
    kept = returned([Damage("a", 0.5), Damage("b", 0.0312)], 2)
    assert [(item.name, item.why) for item in kept] == [
        ("a", "quantised alone it moves the outputs by 50.0%"),
        ("b", "quantised alone it moves the outputs by 3.1%"),
    ]
    assert returned(_damages(3), 0) == ()


def _planted(folder: Path) -> tuple[Path, list[NDArray[np.float32]]]:
    """Three products; two channels alike of what the second reads are 10⁴ times the others, and their weights as much
    less: one more than would be divided."""
    weights = [random(16, 16, seed=seed) for seed in range(3)]
    weights[0][:, [3, 8]] = 1e4 * weights[0][:, [3]]
    weights[1][[3, 8]] *= 1e-4
    nodes = [
        node("MatMul", ["x", "w0"], "a", "first/MatMul"),
        node("MatMul", ["a", "w1"], "b", "second/MatMul"),
        node("MatMul", ["b", "w2"], "y", "third/MatMul"),
    ]
    made = graph(
        nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, {f"w{place}": weight for place, weight in enumerate(weights)}
    )
    save_graph(made, folder / "model.onnx")
    return folder / "model.onnx", weights


@pytest.mark.parametrize("precision", [INT8, Precision.INT8_STATIC])
def test_the_layer_with_outliers_does_most_damage(tmp_path: Path, precision: Precision) -> None:
    path, weights = _planted(tmp_path)
    x = random(8, 16, seed=9)
    material = Material(path, ({"x": x},), ({"x": x},))
    told: list[str] = []
    damages = rank_by_damage(precision, material, Choice(("first", "second", "third")), told.append)
    assert told == [f"damage of layer {number} of 3" for number in (1, 2, 3)]
    assert damages[0].layer == "second"
    assert damages[0].error_fraction > 5 * damages[1].error_fraction
    assert [damage.error_fraction for damage in damages] == sorted((d.error_fraction for d in damages), reverse=True)
    # the input of the second, rounded to 255 steps over its whole range, by hand
    a = (x @ weights[0]).astype(np.float64)
    step = (a.max() - a.min()) / 255
    y = np.rint(a / step) * step @ weights[1] @ weights[2]
    exact = a @ weights[1] @ weights[2]
    by_hand = float(np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)))
    assert damages[0].error_fraction == pytest.approx(by_hand, rel=0.1)


def test_damage_is_measured_on_the_first_calibration_batches_or_else_on_the_examples(tmp_path: Path) -> None:
    path, _ = _planted(tmp_path)
    one, other = {"x": random(8, 16, seed=9)}, {"x": random(8, 16, seed=10)}
    choice = Choice(("first",))
    by = {
        name: rank_by_damage(INT8, Material(path, *batches), choice, lambda what: None)[0].error_fraction
        for name, batches in {
            "one": ((one,), ()),
            "other": ((other,), ()),
            "calibrated": ((one,), (other,)),
        }.items()
    }
    assert by["calibrated"] == by["other"] != by["one"]


@pytest.fixture(scope="module")
def outliers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with three value channels of its first layer 3·10⁴ times as large, and what reads them as much
    less: the same function, whose output projection's input no 8 bits can hold."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("outliers") / "checkpoint"))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    layer = model.bert.encoder.layer[0].attention
    with torch.no_grad():
        layer.self.value.weight[[1, 7, 20]] *= 3e4
        layer.self.value.bias[[1, 7, 20]] *= 3e4
        layer.output.dense.weight[:, [1, 7, 20]] /= 3e4
    model.save_pretrained(folder)
    return folder


@EXACT
@pytest.mark.slow
def test_a_model_that_plain_int8_breaks_is_rescued_by_one_layer(
    outliers: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    batch = tokenize(outliers, ["a warm and funny film", "dull, slow and far too long"])
    assert close(torch_logits(outliers, batch), torch_logits(tiny_checkpoint, batch))  # still the same function

    request = Request(outliers, tmp_path / "run", (Precision.FP32, INT8), selective=False)
    fp32, plain = export(request)
    assert fp32.variant.passed
    assert not plain.variant.passed
    assert failures((fp32, plain)).startswith("int8-dynamic: ")
    assert plain.path.is_file()
    assert plain.variant.recipe.kept == ()
    assert plain.variant.coverage is not None
    assert plain.variant.coverage.macs_fraction == 1
    stored = json.loads((plain.path.parent / "variant.json").read_text())
    assert stored["parity"]["passed"] is False

    again, rescued = export(replace(request, selective=True))
    assert (again.made, rescued.made) == (False, True)
    assert rescued.variant.passed, rescued.variant.reasons
    _check_rescued(rescued.variant, rescued.path, fp32.path)
    found, expected = onnx_logits(rescued.path, batch), torch_logits(outliers, batch)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def _check_rescued(variant: Variant, path: Path, fp32: Path) -> None:
    (kept,) = variant.recipe.kept
    assert kept.name == PLANTED
    assert "moves the outputs by" in kept.why
    coverage = variant.coverage
    assert coverage is not None
    assert (coverage.layers, coverage.of_layers) == (16, 17)  # 14 products and 3 tables
    assert 0.5 <= coverage.macs_fraction < 1
    model = onnx.load(path)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (dense,) = [item for item in model.graph.node if item.op_type == "MatMul" and item.input[1] in weights]
    assert dense.name.startswith(f"{PLANTED}/")
    assert len([item for item in model.graph.node if item.op_type == "MatMulInteger"]) == 13
    original = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(fp32).graph.initializer}
    assert (weights[dense.input[1]] == original[dense.input[1]]).all()
