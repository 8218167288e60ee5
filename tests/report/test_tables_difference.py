"""What people read of runs beside each other."""

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from artifact.judged import Judged
from artifact.precision import Precision
from measure.records import Record
from report.compare_runs import compare_runs
from report.difference import Bounds, Differences, Factor
from report.markdown import render_differences
from report.measured_run import Run
from report.tables_difference import bounds_text, controls, factor, headline, tables
from report.terminal import show_differences
from tests.report.records import failure, quality
from tests.report.test_compare_runs import ANCHOR, INT8, OTHER_CPU, on_machine, records, with_session


def compared(later: list[Record], base: list[Record] | None = None) -> Differences:
    return compare_runs(Run("runs/before", base or records("s1")), [Run("runs/after", later)], Bounds())


def sentences(found: Differences) -> str:
    return "\n".join(headline(found, found.differences[0]))


def test_a_regression_is_the_first_sentence_with_its_figures() -> None:
    lines = sentences(compared(records("s2", slower=1.25))).splitlines()
    assert lines[0].startswith(f"Regressed: {INT8} at 1×16 takes 1.25× [1.23–1.28] as long (p ")
    assert "No regression" not in " ".join(lines)


def test_a_loss_of_accuracy_and_a_failure_are_told_with_theirs() -> None:
    told = sentences(compared(records("s2", scores=(quality(0.80, losses=30),))))
    assert f"Regressed: {INT8} has accuracy 0.800 instead of 0.828 (-2.8 [" in told
    broken_answers = msgspec.structs.replace(quality(0.828, wins=9, losses=11), not_finite=3)
    assert "3 answers are no numbers" in sentences(compared(records("s2", scores=(broken_answers,))))
    gone = [item for item in records("s2") if getattr(item, "precision", None) != Precision.INT8_DYNAMIC]
    broken = failure("ort-cpu", Precision.INT8_DYNAMIC, stage="open", reason="no kernel")
    assert f"Regressed: {INT8} failed: open: no kernel." in sentences(
        compared([*gone, msgspec.structs.replace(broken, session="s2")])
    )


def test_accuracy_has_the_name_of_what_is_judged() -> None:
    after = records("s2", scores=(quality(0.80, losses=30),))
    for judged, name, title in (
        (Judged.VECTOR, "1-NN accuracy", "1-NN accuracy, with a 95 % interval of the difference in points"),
        (Judged.SPAN, "exact match", "Exact match, with a 95 % interval of the difference in points"),
    ):
        found = compared(with_session(after, judged=judged), with_session(records("s1"), judged=judged))
        assert f"Regressed: {INT8} has {name} 0.800 instead of 0.828 (-2.8 [" in sentences(found)
        assert found.differences[0].regressions == (f"{INT8} ({name})",)
        assert title in {table.title for table in tables(found.differences[0])}


def test_no_regression_is_not_the_same_as_within() -> None:
    unsure = sentences(compared(records("s2", slower=1.04)))
    assert "No regression was found: the bounds are 5 % of time and 1 % of accuracy." in unsure
    assert f"Not shown to be within the bounds: {INT8} (1×16, 8×natural)." in unsure
    sure = sentences(compared(records("s2", scores=(quality(0.842, wins=20, losses=8),))))
    assert "Not shown" not in sure
    assert "Everything was shown to be within them." in sure


def test_what_speed_is_judged_by_is_said() -> None:
    assert f"Speed is judged by time relative to the anchor: {ANCHOR} is the same in both" in sentences(
        compared(records("s2"))
    )
    assert "the machines differ (Test CPU and Other CPU)" in sentences(compared(on_machine(records("s2"), **OTHER_CPU)))


def test_where_nothing_can_be_judged_that_is_said() -> None:
    told = sentences(compared(records("s1")))
    assert "Nothing could be judged." in told
    assert "No regression" not in told


@pytest.mark.parametrize(
    ("slowdown", "drop", "text"),
    [(0.05, 0.01, "5 % of time and 1 % of accuracy"), (0.025, 0.005, "2.5 % of time and 0.5 % of accuracy")],
)
def test_bounds_as_they_were_asked_for(slowdown: float, drop: float, text: str) -> None:
    assert bounds_text(Bounds(slowdown_fraction=slowdown, accuracy_drop_fraction=drop)) == text


def test_a_factor_never_stands_without_its_interval() -> None:
    assert factor(Factor(factor=1.083, low=1.05, high=1.121)) == "1.08× [1.05–1.12]"
    assert "too few runs" in factor(Factor(factor=1.083, low=None, high=None))
    assert factor(None) == "–"


def test_seconds_of_unlike_machines_stand_side_by_side_without_a_ratio() -> None:
    found = compared(on_machine(records("s2", machine=3.0), **OTHER_CPU)).differences[0]
    table = next(table for table in tables(found) if table.title.startswith("Side by side"))
    cells = dict(zip(table.headers, table.rows[0], strict=True))
    assert (cells["base"], cells["later"], cells["seconds, later/base"]) == ("10.0 ms", "30.0 ms", "–")


def test_the_controls_of_both_are_told() -> None:
    assert controls(compared(records("s2")).differences[0]) == (
        "A/A controls: equivalent in runs/before, equivalent in runs/after."
    )
    assert "none in runs/after" in controls(compared(records("s2", control=False)).differences[0])


def test_markdown_is_complete_and_well_formed() -> None:
    later = with_session(records("s2", slower=1.25), environment={"A|B": "1"})
    text = render_differences(compared(later))
    for words in (
        "# Runs beside each other",
        "**runs/after beside runs/before**",
        "## What differs",
        "A/A controls",
        "1.25× [1.23–1.28] regressed",
        "Holm",
    ):
        assert words in text
    blocks = [block.replace("\\|", "") for block in text.split("\n\n") if block.startswith("| ")]
    assert len(blocks) == 5
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_terminal_shows_every_name_and_factor_at_any_width(width: int) -> None:
    out = Console(width=width, record=True, file=StringIO())
    show_differences(out, compared(records("s2", slower=1.25)))
    shown = out.export_text()
    for words in (INT8, "1.25×", "Regressed:", "regressed", "yardstick"):
        assert words in shown
