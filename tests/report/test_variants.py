"""What people read about an export: cells, marks and sentences, from records made by hand."""

from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console

from artifact.precision import Precision
from artifact.task import Task
from artifact.variant import (
    SCHEMA_VERSION,
    Coverage,
    Flip,
    Invariance,
    Kept,
    Metric,
    Parity,
    Recipe,
    Support,
    TensorSpec,
    Variant,
)
from report.markdown import render_variants
from report.terminal import show_variants
from report.variants import mark, variants_notes, variants_table

PARITY = Parity(
    inputs="reviews.csv",
    examples=500,
    scales={"logits": 4.0},
    max_error_fraction=2.5e-6,
    p99_error_fraction=1e-6,
    cosine=1.0,
    agreement_fraction=1.0,
    flips=(),
    flipped=0,
    near_ties=0,
    shapes=("1×1",),
    shapes_error_fraction=0.0,
    invariance=Invariance(
        examples=16, alone_error_fraction=0, alone_changed=0, padded_error_fraction=0, left_error_fraction=None
    ),
    emulated=False,
    passed=True,
    reasons=(),
)
METRIC = Metric(
    name="accuracy",
    examples=500,
    value=0.83,
    reference=0.834,
    difference_low=-0.0062,
    difference_high=0.0031,
    floor=0.82566,
    excluded_drop=0.0062,
    passed=True,
)
SPEC = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
CPU = Support(engine="ort-cpu", runs=True)
GPU = Support(engine="ort-cuda", runs=None, reason="not tried: no GPU")


def variant(precision: Precision = Precision.FP32, **changes: Any) -> Variant:
    usual = Variant(
        schema_version=SCHEMA_VERSION,
        fingerprint="f",
        checkpoint_sha256="c",
        task=Task.TEXT_CLASSIFICATION,
        precision=precision,
        file="model.onnx",
        size_bytes=90_867_952,
        files={"model.onnx": "s"},
        opset=20,
        ir_version=10,
        domains=("ai.onnx",),
        minimum_onnxruntime="1.17",
        inputs=(SPEC,),
        outputs=(SPEC,),
        nodes=124,
        operators={"MatMul": 12},
        fused={},
        unfused={},
        weight_elements={"float32": 22_000_000},
        coverage=None,
        recipe=Recipe(profile="portable"),
        parity=PARITY,
        metric=None,
        support=(CPU,),
        golden_error_fraction=0.0,
        seconds_s=6.646,
        versions={},
    )
    return msgspec.structs.replace(usual, **changes)


def parity(**changes: Any) -> Parity:
    return msgspec.structs.replace(PARITY, **changes)


def metric(**changes: Any) -> Metric:
    return msgspec.structs.replace(METRIC, **changes)


def cells(*variants: Variant) -> list[dict[str, str]]:
    table = variants_table(variants)
    return [dict(zip(table.headers, row, strict=True)) for row in table.rows]


def test_a_line_holds_every_figure_with_its_unit() -> None:
    int8 = variant(
        Precision.INT8_DYNAMIC,
        size_bytes=22_961_000,
        nodes=185,
        fused={"LayerNormalization": 13, "Gelu": 6},
        coverage=Coverage(layers=35, of_layers=37, weights_fraction=0.994, macs_fraction=0.917),
        parity=parity(max_error_fraction=0.0807, agreement_fraction=0.9755),
        metric=METRIC,
        support=(CPU, GPU),
        seconds_s=0.2614,
    )
    table = variants_table((int8,))
    assert table.title == ("text-classification, portable: compared with PyTorch fp32 on 500 examples (reviews.csv)")
    assert cells(int8) == [
        {
            "precision": "int8-dynamic ✓",
            "file": "23.0 MB",
            "nodes": "185",
            "fused": "19",
            "weights": "99 %",
            "work": "92 %",
            "error": "8.1e-02",
            "agrees": "97.5 %",
            "accuracy": "0.830 [-0.6 to +0.3]",
            "ort-cpu": "yes",
            "ort-cuda": "?",
            "made in": "261 ms",
        }
    ]


def test_what_does_not_apply_is_a_dash_and_what_does_not_run_is_said() -> None:
    (line,) = cells(
        variant(parity=parity(agreement_fraction=None), support=(Support(engine="ort-cpu", runs=False, reason="no"),))
    )
    assert (line["weights"], line["work"], line["agrees"], line["metric"]) == ("–", "–", "–", "–")
    assert (line["ort-cpu"], line["made in"], line["error"]) == ("no", "6.65 s", "2.5e-06")


def test_the_metric_names_its_column_where_any_variant_has_one() -> None:
    lines = cells(variant(), variant(Precision.FP16, metric=metric(name="span F1")))
    assert [line["span F1"] for line in lines] == ["–", "0.830 [-0.6 to +0.3]"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "✓"),
        ({"parity": parity(passed=False, reasons=("too far",))}, "✗"),
        ({"metric": metric(passed=False)}, "✗"),
        (
            {"metric": metric(difference_low=-0.02)},
            "✓",
        ),  # the same function up to rounding: no number of examples could tell
        ({"metric": METRIC, "parity": parity(max_error_fraction=0.08)}, "✓"),  # 0.834 - 0.0062 is above 0.82566
        ({"metric": metric(difference_low=-0.0084), "parity": parity(max_error_fraction=0.08)}, "≈"),
        ({"metric": metric(difference_low=-0.0083), "parity": parity(max_error_fraction=0.08)}, "✓"),
        ({"parity": parity(max_error_fraction=0.08)}, "✓"),  # nothing is labelled
    ],
)
def test_marks_tell_passed_unsure_and_failed(changes: dict[str, Any], expected: str) -> None:
    assert mark(variant(**changes)) == expected


def test_reasons_of_failure_come_first() -> None:
    failed = variant(
        Precision.INT4,
        parity=parity(passed=False, reasons=("cosine 0.9 is below 0.95",), flipped=7, near_ties=3),
        metric=metric(value=0.801, passed=False),
    )
    assert variants_notes((failed,))[0].startswith(
        "int4: fails, because cosine 0.9 is below 0.95; fails, because accuracy 0.8010 is below the floor 0.8257; "
        "7 answers differ, 3 of them near ties"
    )


def test_an_engines_reason_is_told_once_for_all_it_holds_for() -> None:
    bf16 = Support(engine="ort-cpu", runs=False, reason="NOT_IMPLEMENTED: no Add")
    notes = variants_notes(
        (
            variant(support=(CPU, GPU)),
            variant(Precision.FP16, support=(CPU, GPU)),
            variant(Precision.BF16, support=(bf16, GPU)),
        )
    )
    assert notes == (
        "ort-cuda (fp32, fp16, bf16): not tried: no GPU",
        "ort-cpu (bf16): NOT_IMPLEMENTED: no Add",
    )


def test_only_five_kept_layers_are_named() -> None:
    kept = tuple(Kept(name=f"layer.{number}", why=f"moves {number} %") for number in range(8))
    recipe = Recipe(profile="portable", kept=kept, block_size=32, accuracy_level=4)
    (note,) = variants_notes((variant(Precision.INT4, recipe=recipe),))
    named = ", ".join(f"layer.{number} (moves {number} %)" for number in range(5))
    assert note == f"int4: kept in fp32: {named} and 3 more; blocks of 32, accuracy level 4"
    (note,) = variants_notes((variant(Precision.INT4, recipe=Recipe(profile="portable", kept=kept[:5])),))
    assert note == f"int4: kept in fp32: {named}"


def test_calibration_is_told_with_what_each_way_reached() -> None:
    recipe = Recipe(
        profile="portable",
        calibration="percentile",
        calibration_examples=128,
        calibrations={"minmax": 0.72643, "percentile": 0.73},
    )
    (note,) = variants_notes((variant(Precision.INT8_STATIC, recipe=recipe),))
    assert note == (
        "int8-static: ranges by percentile of 128 training examples (on others: minmax 0.7264, percentile 0.73)"
    )
    (note,) = variants_notes((variant(recipe=msgspec.structs.replace(recipe, calibrations={})),))
    assert note.endswith("of 128 training examples")


def test_channels_that_were_divided_are_told() -> None:
    recipe = Recipe(profile="portable", divided_channels=9, chosen_on="training examples")
    (note,) = variants_notes((variant(recipe=recipe),))
    assert note.endswith("9 channels that stand out are divided before rounding (chosen on training examples)")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fused": {"Gelu": 6}, "unfused": {"LayerNormalization": 1}}, "fused: 6 Gelu, not: 1 LayerNormalization"),
        ({"fused": {"Gelu": 6}}, "fused: 6 Gelu"),
        ({"parity": parity(emulated=True)}, "half arithmetic was emulated, because a CPU computes it in fp32"),
        (
            {
                "parity": parity(
                    invariance=Invariance(
                        examples=16,
                        alone_error_fraction=0.1,
                        alone_changed=2,
                        padded_error_fraction=None,
                        left_error_fraction=None,
                    )
                )
            },
            "2 of 16 answers depend on what shares a batch",
        ),
        (
            {"metric": METRIC, "parity": parity(max_error_fraction=0.08)},
            "500 examples exclude a drop of more than 0.6 points",
        ),
        (
            {"recipe": Recipe(profile="portable", weights_overflowing=2, weights_vanishing=31)},
            "2 weights too large for half numbers, 31 rounded to 0",
        ),
    ],
)
def test_what_a_line_has_no_room_for_is_a_note(changes: dict[str, Any], words: str) -> None:
    (note,) = variants_notes((variant(Precision.FP16, **changes),))
    assert note.startswith(f"fp16: {words}")


def test_nothing_to_say_is_not_said() -> None:
    plain = variant(
        parity=parity(flips=(Flip(example="a", margin_fraction=0, near_tie=True),)),
        metric=METRIC,
        recipe=Recipe(profile="portable", weights_overflowing=0, weights_vanishing=0),
    )
    assert variants_notes((plain,)) == ()
    assert "## Of each" not in render_variants((plain,))


def test_markdown_is_complete_and_its_cells_cannot_break_it() -> None:
    odd = variant(
        parity=parity(inputs="a|b.csv", passed=False, reasons=("it says: a | b",)),
        metric=metric(name="F1 | macro\nof all"),
        support=(Support(engine="ort|cpu", runs=None, reason="not | tried"),),
    )
    text = render_variants((odd, msgspec.structs.replace(odd, precision=Precision.BF16)))
    assert text.startswith(
        "# Variants\n\n## text-classification, portable: compared with PyTorch fp32 on 500 examples ("
    )
    table = next(block for block in text.split("\n\n") if block.startswith("| "))
    lines = table.splitlines()
    assert len(lines) == 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {12}
    assert "F1 \\| macro of all" in lines[0]
    assert "ort\\|cpu" in lines[0]
    assert "- fp32: fails, because it says: a | b; " not in text
    assert "- fp32: fails, because it says: a | b" in text
    assert "- ort|cpu (fp32, bf16): not | tried" in text
    assert "## How to read it" in text
    assert text.endswith("\n")


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_terminal_shows_every_precision_and_reason_at_any_width(width: int) -> None:
    out = Console(width=width, record=True, file=StringIO())
    failed = variant(Precision.INT4, parity=parity(passed=False, reasons=("too far",)))
    show_variants(out, [variant(), failed])
    shown = " ".join(out.export_text().split())
    assert "fp32 ✓" in shown
    assert "int4 ✗" in shown
    assert "fails, because too far" in shown
