"""Where figures are drawn: places on axes worked out on paper, lanes and dots, names that do not cover one another."""

import re
from itertools import combinations, pairwise
from math import log
from typing import Any

import msgspec
import pytest

from artifact.intervals import Interval
from measure.records import Measurement
from measure.statistics import Decision
from report.break_even import break_even
from report.charts import calls, first_answers, hue, sizes, speeds
from report.evidence import Evidence
from report.judge import DEFAULT, judge
from report.labels import Box, place
from report.samples import Calls
from report.scales import Scale
from report.svg import element, percent
from report.tradeoff import NARROW, WIDE, Point, Sheet, best_tradeoffs, tradeoff, tradeoff_points
from report.verdict import Ratio, Row
from tests.report.records import quality, two_fixed, usual


def row(name: str) -> Row:
    return next(row for row in judge(usual()).rows if row.name == name)


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def test_elements_escape_their_words_and_attributes() -> None:
    drawn = element("text", "<b> & c", class_="a", text_anchor="end", x=1.0, y=2.504, title='"quoted"')
    assert drawn == '<text class="a" text-anchor="end" x="1" y="2.5" title="&#34;quoted&#34;">&lt;b&gt; &amp; c</text>'
    assert element("g", element("line", x=0.5)) == '<g><line x="0.5"></line></g>'


def test_a_logarithmic_axis_has_equal_factors_at_equal_distances() -> None:
    scale = Scale(1.0, 16.0, is_log=True)
    assert [scale.share(value) for value in (1, 2, 4, 8, 16)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert (scale.share(0.5), scale.share(99)) == (0, 1)


def test_an_axis_leaves_four_hundredths_free_at_its_ends() -> None:
    scale = Scale.logarithmic([1, 100])
    assert (scale.low, scale.high) == pytest.approx((100**-0.04, 100**1.04))
    assert scale.share(10) == pytest.approx(0.5)
    linear = Scale.linear([10, 20])
    assert (linear.low, linear.high) == pytest.approx((9.6, 20.4))
    assert Scale.from_zero([50, 20]).share(26) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [Scale.logarithmic([3]), Scale.linear([3]), Scale.linear([0]), Scale.from_zero([0])])
def test_one_value_alone_has_an_axis_too(scale: Scale) -> None:
    assert scale.low < scale.high
    assert len(scale.ticks(4)) >= 2


@pytest.mark.parametrize(
    ("scale", "most", "ticks"),
    [
        (Scale(0.95, 5.2, is_log=True), 5, (1, 1.5, 2, 3, 5)),
        (Scale(0.95, 5.2, is_log=True), 4, (1, 2, 5)),
        (Scale(0.004, 0.22, is_log=True), 4, (0.01, 0.03, 0.1)),
        (Scale(0.8, 1.3, is_log=True), 5, (0.8, 1.0, 1.2)),
        (Scale(1e-6, 1e6, is_log=True), 4, (1e-6, 1e-2, 1e2, 1e6)),
        (Scale(0.83, 0.845, is_log=False), 6, (0.83, 0.835, 0.84, 0.845)),
        (Scale(0, 326, is_log=False), 4, (0, 100, 200, 300)),
        (Scale(0, 3.5, is_log=False), 4, (0, 1, 2, 3)),
    ],
)
def test_ticks_are_round_and_no_more_than_asked_for(scale: Scale, most: int, ticks: tuple[float, ...]) -> None:
    assert scale.ticks(most) == pytest.approx(ticks)


def test_speeds_lie_where_their_logarithms_say() -> None:
    """From 1/1.02 to 4, with room: 2 lies at log(2 / low) of log(high / low)."""
    base = row("ort-cpu/fp32")
    drawn = [
        msgspec.structs.replace(base, overall=Ratio(ratio=2, low=1, high=4, decision=Decision.INCONCLUSIVE)),
        msgspec.structs.replace(base, overall=Ratio(ratio=1.5, low=None, high=None, decision=Decision.INCONCLUSIVE)),
        msgspec.structs.replace(base, overall=None),
        row("torch-cpu/fp32"),
    ]
    column = speeds(drawn)
    room = (4 * 1.02) ** 0.04
    low, high = 1 / 1.02 / room, 4 * room

    def at(value: float) -> Any:
        return pytest.approx(100 * log(value / low) / log(high / low), abs=0.006)

    first, lone, none, anchor = column.cells
    assert numbers(r'cx="([\d.]+)%"', first) == [at(2)]
    whisker = re.search(r'<line x1="([\d.]+)%" x2="([\d.]+)%" y1="50%" y2="50%" class="whisker">', first)
    assert whisker
    assert [float(end) for end in whisker.groups()] == [at(1), at(4)]
    zone = re.search(r'<rect x="([\d.]+)%" width="([\d.]+)%"', first)
    assert zone
    assert float(zone[1]) == at(1 / 1.02)
    assert float(zone[1]) + float(zone[2]) == at(1.02)
    assert numbers(r'cx="([\d.]+)%"', lone) == [at(1.5)]
    assert "whisker" not in lone
    assert "circle" not in none
    assert "never ran beside the baseline" in none
    assert numbers(r'cx="([\d.]+)%"', anchor) == [at(1)]


def test_a_runtime_has_one_colour_and_the_control_is_grey() -> None:
    assert hue(row("torch-cpu/fp32")) == hue(row("torch-cpu/bf16")) != hue(row("ort-cpu/fp32"))
    assert hue(row("torch-cpu/fp32 (A/A)")) == "hue-none"
    assert hue(msgspec.structs.replace(row("ort-cpu/fp32"), runtime="of another version")) == "hue-none"


def test_few_of_many_calls_are_drawn_and_the_ends_among_them() -> None:
    found = Calls((tuple(range(1000)), tuple(range(10)), ()))
    many, few, none = found.thinned(most=60)
    assert (len(many), many[0], many[-1]) == (20, 0, 999)
    assert {later - earlier for earlier, later in pairwise(many)} <= {52, 53}
    assert few == tuple(range(10))
    assert none == ()


def test_each_process_has_a_lane_and_each_call_a_dot() -> None:
    found = Calls(((0.001, 0.010), (0.010, 0.100)))
    base = row("ort-cpu/fp32")
    result = msgspec.structs.replace(base.workloads[0], p90_s=0.1, p95_s=None, p99_s=None)
    column = calls([msgspec.structs.replace(base, workloads=(result,))], [found], result.workload)
    (cell,) = column.cells
    assert 'viewBox="0 0 1000 30"' in cell  # the third lane is that of the percentiles
    low, high = 0.001 * 100**-0.04, 0.1 * 100**0.04
    places = [round(1000 * log(value / low) / log(high / low)) for value in (0.001, 0.010, 0.010, 0.100)]
    lanes = re.findall(r"M(\d+) (\d+)h0m(\d+) 0h0", cell)
    assert [(int(x), int(x) + int(step), int(y)) for x, y, step in lanes] == [(*places[:2], 5), (*places[2:], 15)]
    assert '<line x1="50%" x2="50%" y1="0" y2="100%" class="median">' in cell
    assert numbers(r'x1="([\d.]+)%" x2="[\d.]+%" y1="66.67%"', cell) == [pytest.approx(places[-1] / 10, abs=0.06)]
    assert cell.count('class="higher"') == 1
    assert column.height == 28
    heights = [calls([base], [Calls(((0.001,),) * count)], "1×16").height for count in (12, 100)]
    assert heights == [13 * 4, 64]
    assert "4 calls of 2 processes, from 1.00 ms to 100 ms" in cell


def test_calls_are_those_of_one_workload() -> None:
    measured = [item for item in usual() if isinstance(item, Measurement) and item.entrant.name == "ort-cpu/fp32"]
    found = Calls.of(measured, "8×natural")
    assert len(found.processes) == 4
    assert len(found.together) == 4 * 2 * 4
    assert found.median_s == pytest.approx(0.064, rel=0.005)
    assert Calls.of(measured, "another").median_s is None


def test_costs_start_at_zero() -> None:
    """The axis ends 4 % beyond the largest: 100 MB of 100 lie at 1 / 1.04."""
    rows = [row("ort-cpu/fp32"), row("torch-cpu/fp32")]
    bars = sizes(rows, [100_000_000, None])
    assert numbers(r'x2="([\d.]+)%" y1="50%"', bars.cells[0]) == [pytest.approx(100 / 1.04, abs=0.006)]
    assert numbers(r'x2="([\d.]+)%" y1="50%"', bars.cells[1]) == [0]
    starts = zip(rows, ((1.0, 2.0), (4.0,)), strict=True)
    dots = first_answers([msgspec.structs.replace(item, cold_starts_s=seconds) for item, seconds in starts])
    assert numbers(r'cx="([\d.]+)%"', dots.cells[0]) == pytest.approx([25 / 1.04, 50 / 1.04], abs=0.006)


def test_names_cover_neither_one_another_nor_points() -> None:
    room = Box(0, 0, 356, 300)
    names = [f"ort-cpu/candidate-{number}" for number in range(6)]
    points = [(100.0 + 20 * number, 150.0 + 3 * (number % 2)) for number in range(6)]
    taken = Box(0, 160, 60, 176)
    labels = place(names, points, room, [taken])
    boxes = [label.box for label in labels if label]
    assert len(boxes) == len(names)
    for one, other in combinations([*boxes, taken], 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert room.holds(box)
        assert not any(box.left < x < box.right and box.top < y < box.bottom for x, y in points)


def test_a_name_without_room_is_not_placed() -> None:
    assert place(["far too long a name"], [(50, 50)], Box(0, 0, 100, 100)) == (None,)
    one, other, *_ = place(["abc"] * 40, [(50, 50)] * 40, Box(0, 0, 100, 100))
    assert one
    assert other
    assert None in place(["abc"] * 40, [(50, 50)] * 40, Box(0, 0, 100, 100))


def point(name: str, speed: float, accuracy: float, reason: str | None = None) -> Point:
    return Point(
        name, "hue-0", Interval(speed, None, None), Interval(accuracy, accuracy - 0.01, accuracy + 0.01), reason
    )


def test_points_of_the_plot_and_their_intervals() -> None:
    """The accuracy's interval is the reference's accuracy and the interval of the difference from it."""
    points = {item.name: item for item in tradeoff_points(judge(usual()))}
    assert set(points) == {"torch-cpu/fp32", "torch-cpu/bf16", "ort-cpu/fp32", "ort-cpu/int8-dynamic"}
    int8, found = points["ort-cpu/int8-dynamic"], row("ort-cpu/int8-dynamic").quality
    assert found
    assert int8.accuracy == Interval(0.828, 0.83 + found.difference_low, 0.83 + found.difference_high)
    assert int8.accuracy.low is not None
    assert int8.accuracy.low < 0.828 < (int8.accuracy.high or 0)
    assert points["torch-cpu/fp32"].speed == Interval(1.0, None, None)


def test_the_front_leaves_out_what_cannot_be_recommended() -> None:
    points = [point("a", 1, 0.9), point("b", 2, 0.8), point("c", 1.5, 0.7), point("d", 9, 0.99, "too young")]
    assert [item.name for item in best_tradeoffs(points)] == ["a", "b"]


@pytest.mark.parametrize("sheet", [WIDE, NARROW])
def test_the_plot_has_a_place_for_each_point_and_hollow_ones_for_the_rejected(sheet: Sheet) -> None:
    points = [point("a", 1, 0.9), point("b", 4, 0.8), point("c", 2, 0.7, "below the gate")]
    drawn = tradeoff(points, [0.75], "a", sheet)
    assert drawn.count('class="dot ') == 2
    assert drawn.count('class="hollow ') == 1
    assert ">gate 0.750<" in drawn
    left, right = sheet.left, sheet.width - sheet.right
    low, high = 4**-0.04, 4**1.04
    across = [left + (right - left) * log(value / low) / log(high / low) for value in (1, 2, 4)]
    assert sorted(numbers(r'cx="([\d.]+)"', drawn)) == pytest.approx(across, abs=0.006)


def test_the_plot_has_the_name_of_what_is_judged() -> None:
    drawn = tradeoff([point("a", 1, 0.9)], [0.75], "a", WIDE, "exact match")
    assert ">exact match</text>" in drawn
    assert "Exact match against speed. Not beaten in both: a (" in drawn
    assert "a: 1.00×, exact match 0.900" in drawn


def test_what_is_far_too_inaccurate_does_not_flatten_the_rest() -> None:
    points = [point("good", 2, 0.84), point("broken", 4, 0.1, "below the gate")]
    drawn = tradeoff(points, [0.83], "good", WIDE)
    assert "broken, 0.100 ↓" in drawn
    heights = numbers(r'cy="([\d.]+)"', drawn)
    assert max(heights) == WIDE.height - WIDE.bottom
    assert min(heights) < WIDE.height / 2


def test_a_plot_where_nothing_passed_has_no_front() -> None:
    drawn = tradeoff([point("broken", 4, 0.1, "below the gate")], [0.83], "good", NARROW)
    assert 'class="front"' not in drawn
    assert "Not beaten in both: none." in drawn


def test_names_without_room_are_told_below_the_plot() -> None:
    points = [point(f"torch-cpu/a-very-long-name-{number}", 2, 0.84) for number in range(40)]
    assert "for want of room: torch-cpu/a-very-long-name-" in tradeoff(points, [0.83], "good", NARROW)


def test_the_map_names_the_winner_and_its_lead_over_the_second() -> None:
    """At 8×16 bf16 takes half of int8's time; elsewhere int8 takes half of bf16's. Both scatter alike, so leads are
    exact."""
    at_8 = {"torch-cpu/fp32": 0.1, "torch-cpu/bf16": 0.01, "ort-cpu/fp32": 0.08, "ort-cpu/int8-dynamic": 0.02}
    records = two_fixed(at_8)
    found = break_even(judge(records), Evidence(records, DEFAULT))
    assert found
    assert (found.batch_sizes, found.lengths) == ((1, 8), ("16", "natural"))
    assert set(found.cells) == {(1, "16"), (8, "16"), (8, "natural")}
    names = {place: (cell.winner.name, cell.second.name) for place, cell in found.cells.items()}
    assert names[1, "16"] == names[8, "natural"] == ("ort-cpu/int8-dynamic", "torch-cpu/bf16")
    assert names[8, "16"] == ("torch-cpu/bf16", "ort-cpu/int8-dynamic")
    for cell in found.cells.values():
        assert cell.lead
        assert (cell.lead.low, cell.lead.ratio, cell.lead.high) == pytest.approx((2, 2, 2))
        assert not cell.is_close


def test_a_lead_within_two_per_cent_is_too_close_to_call() -> None:
    records = two_fixed({"torch-cpu/bf16": 0.00251, "ort-cpu/int8-dynamic": 0.0025})
    found = break_even(judge(records), Evidence(records, DEFAULT))
    assert found
    assert {place for place, cell in found.cells.items() if cell.is_close} == {(8, "16")}


def test_no_map_without_two_fixed_workloads_or_two_candidates() -> None:
    assert break_even(judge(usual()), Evidence(usual(), DEFAULT)) is None
    records = two_fixed({})
    alone = [item for item in records if not isinstance(item, Measurement) or item.entrant.name == "torch-cpu/fp32"]
    assert break_even(judge(alone), Evidence(alone, DEFAULT)) is None


def test_the_rejected_win_nothing() -> None:
    records = two_fixed({})
    assert break_even(judge(records), Evidence(records, DEFAULT))
    failed = quality(0.5, losses=330)
    records = [
        msgspec.structs.replace(item, quality=(failed,) if item.quality else ())
        if isinstance(item, Measurement) and item.entrant.name == "ort-cpu/int8-dynamic"
        else item
        for item in records
    ]
    found = break_even(judge(records), Evidence(records, DEFAULT))
    assert found
    assert {cell.winner.name for cell in found.cells.values()} == {"torch-cpu/bf16"}


def test_percentages() -> None:
    assert [percent(share) for share in (0, 0.5, 1 / 3, 1)] == ["0%", "50%", "33.33%", "100%"]
