"""Drawn columns of tables: SVG without a script, placed by percentages, so that it stretches and its words do not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from artifact.intervals import Interval
from measure.records import Role
from measure.statistics import EQUIVALENT
from report.figures import seconds, size, times
from report.samples import Calls
from report.scales import Scale
from report.svg import element, percent
from report.verdict import Row
from runtimes.registry import REGISTRY

HUES = 6
"""Colours of runtimes in page.css."""

LEAST_HEIGHT, MOST_HEIGHT = 28, 64
"""Of a drawing in a row, in CSS pixels."""

LANE, LANE_PIXELS = 10, 4
"""Height of one process in the drawing of calls, in its own units and the least in CSS pixels."""

ACROSS = 1000
"""Steps along the axis in the drawing of calls."""


@dataclass(frozen=True, slots=True)
class Column:
    """A drawn column of a table: its title and axis for the header, and one drawing for each row, of at least
    `height` CSS pixels."""

    title: str
    axis: Markup
    cells: tuple[Markup, ...]
    height: int = LEAST_HEIGHT


@dataclass(frozen=True, slots=True)
class _Axis:
    """What the drawings of one column share. `zone` is shaded from one value to another."""

    scale: Scale
    ticks: tuple[float, ...]
    write: Callable[[float], str]
    zone: tuple[float, float] | None = None

    def at(self, value: float) -> str:
        return percent(self.scale.share(value))

    @property
    def header(self) -> Markup:
        return element("svg", *self._words("0", 13), class_="axis", aria_hidden="true")

    def strip(self, title: str, hue: str, *marks: Markup) -> Markup:
        """One row; its own figures along the axis are shown where the header is not (on a phone)."""
        grid = (element("line", x1=at, x2=at, y1="0", y2="100%", class_="grid") for at in map(self.at, self.ticks))
        words = element("g", *self._words("100%", 12), class_="ticks")
        return element(
            "svg", element("title", title), *self._shade(), *grid, *marks, words, class_=f"strip {hue}", role="img"
        )

    def _shade(self) -> Iterable[Markup]:
        if self.zone:
            low, high = (self.scale.share(end) for end in self.zone)
            yield element("rect", x=percent(low), width=percent(high - low), y="0", height="100%", class_="zone")

    def _words(self, y: str, below: int) -> Iterable[Markup]:
        for tick in self.ticks:
            share = self.scale.share(tick)
            yield element("text", self.write(tick), x=percent(share), y=y, dy=below, text_anchor=_anchor(share))


def hue(row: Row) -> str:
    """CSS class of a candidate's colour: one for each runtime, the same in every report; grey for the control."""
    known = tuple(REGISTRY)
    if row.role is Role.CONTROL or row.runtime not in known:
        return "hue-none"
    return f"hue-{known.index(row.runtime) % HUES}"


def speeds(rows: Sequence[Row]) -> Column:
    """Speed against the baseline with its 95 % interval, on one logarithmic axis; what lies within ±2 % is shaded."""
    ratios = [speed(row) for row in rows]
    zone = (1 / EQUIVALENT, EQUIVALENT)
    scale = Scale.logarithmic([*(end for ratio in ratios if ratio for end in ends(ratio)), *zone])
    axis = _Axis(scale, scale.ticks(5), multiple, zone)
    return Column(
        "95 % interval", axis.header, tuple(_speed_strip(axis, *pair) for pair in zip(rows, ratios, strict=True))
    )


def _speed_strip(axis: _Axis, row: Row, ratio: Interval | None) -> Markup:
    if ratio is None:
        return axis.strip(f"{row.name}: never ran beside the baseline", hue(row))
    told = "the baseline" if row.role is Role.ANCHOR else f"{times(row.overall)} the speed of the baseline"
    return axis.strip(f"{row.name}: {told}", hue(row), *_whiskers(axis, ratio), _dot(axis.at(ratio.estimate)))


def calls(rows: Sequence[Row], found: Sequence[Calls], workload: str) -> Column:
    """Seconds of single calls on one logarithmic axis: a lane of dots for each process, a long line at the median, and
    below the lanes short ones at the bounds of the higher percentiles."""
    scale = Scale.logarithmic(end for item in found if item.processes for end in (item.together[0], item.together[-1]))
    axis = _Axis(scale, scale.ticks(4), _seconds)
    cells = tuple(_call_strip(axis, row, item, bounds(row, workload)) for row, item in zip(rows, found, strict=True))
    lanes = 1 + max((len(item.processes) for item in found), default=0)
    return Column("each call", axis.header, cells, min(MOST_HEIGHT, max(LEAST_HEIGHT, LANE_PIXELS * lanes)))


def bounds(row: Row, workload: str) -> tuple[float | None, float | None, float | None]:
    """What p90, p95 and p99 of a candidate's calls lie below; `None` where the calls are too few to say so."""
    found = next((item for item in row.workloads if item.workload == workload), None)
    return (found.p90_s, found.p95_s, found.p99_s) if found else (None, None, None)


def _call_strip(axis: _Axis, row: Row, found: Calls, higher: Sequence[float | None]) -> Markup:
    together = found.together
    if found.median_s is None:
        return axis.strip(f"{row.name}: no calls", hue(row))
    dots = "".join(_lane(axis.scale, lane, process) for lane, process in enumerate(found.thinned()))
    lanes = len(found.processes) + 1
    drawn = element(
        "svg",
        element("path", d=dots, class_="calls"),
        viewBox=f"0 0 {ACROSS} {LANE * lanes}",
        preserveAspectRatio="none",
    )
    lines = (
        _upright(axis.at(found.median_s), "median", "0", "100%"),
        *(_upright(axis.at(value), "higher", percent(1 - 1 / lanes), "100%") for value in higher if value is not None),
    )
    title = (
        f"{row.name}: {len(together)} calls of {len(found.processes)} processes, from {seconds(together[0])} to "
        f"{seconds(together[-1])}, half of them within {seconds(found.median_s)}"
    )
    return axis.strip(title, hue(row), drawn, *lines)


def _lane(scale: Scale, lane: int, process: Sequence[float]) -> str:
    """A path of dots, one for each call of a process: lines of no length with round ends, each as far from the one
    before as their places are."""
    places = [round(ACROSS * scale.share(sample)) for sample in process]
    steps = (f"m{later - earlier} 0h0" for earlier, later in pairwise(places))
    return f"M{places[0]} {LANE * lane + LANE // 2}h0{''.join(steps)}"


def first_answers(rows: Sequence[Row]) -> Column:
    """Seconds from starting a process to its first answer: a dot for each process, and a line at their median."""
    axis = _from_zero([start for row in rows for start in row.cold_starts_s], 4, _seconds)
    cells = tuple(
        axis.strip(
            f"{row.name}: first answer after {', '.join(map(seconds, row.cold_starts_s))}",
            hue(row),
            *(_upright(axis.at(value), "median", "15%", "85%") for value in (row.cold_start_s,) if value is not None),
            *(_dot(axis.at(start), "seen") for start in row.cold_starts_s),
        )
        for row in rows
    )
    return Column("each process", axis.header, cells)


def sizes(rows: Sequence[Row], found: Sequence[int | None]) -> Column:
    """Bytes as bars from zero, on an axis of megabytes."""
    axis = _from_zero([max(0, value) for value in found if value is not None], 5, _megabytes)
    cells = tuple(
        axis.strip(
            f"{row.name}: {size(value)}",
            hue(row),
            element("line", x1="0", x2=axis.at(value or 0), y1="50%", y2="50%", class_="bar"),
        )
        for row, value in zip(rows, found, strict=True)
    )
    return Column("MB, from zero", axis.header, cells)


def speed(row: Row) -> Interval | None:
    """Speed as a multiple of the anchor's, which is 1 by definition."""
    if row.role is Role.ANCHOR:
        return Interval(1.0, None, None)
    return Interval(row.overall.ratio, row.overall.low, row.overall.high) if row.overall else None


def ends(found: Interval) -> tuple[float, ...]:
    """What must lie on an axis: the estimate, and the ends where there are some."""
    return tuple(end for end in (found.low, found.estimate, found.high) if end is not None)


def both(found: Interval) -> tuple[tuple[float, float], ...]:
    """The two ends of an interval, if it has them."""
    return () if found.low is None or found.high is None else ((found.low, found.high),)


def _whiskers(axis: _Axis, found: Interval) -> tuple[Markup, ...]:
    return tuple(
        element("line", x1=axis.at(low), x2=axis.at(high), y1="50%", y2="50%", class_="whisker")
        for low, high in both(found)
    )


def _dot(at: str, kind: str = "dot") -> Markup:
    return element("circle", cx=at, cy="50%", r=3.5, class_=kind)


def _upright(at: str, kind: str, top: str, bottom: str) -> Markup:
    return element("line", x1=at, x2=at, y1=top, y2=bottom, class_=kind)


def _from_zero(values: Sequence[float], ticks: int, write: Callable[[float], str]) -> _Axis:
    scale = Scale.from_zero(values)
    return _Axis(scale, scale.ticks(ticks), write)


def _anchor(share: float) -> str:
    """Figures at the ends of an axis do not stand out of it."""
    if share < 0.1:
        return "start"
    return "end" if share > 0.9 else "middle"


def multiple(value: float) -> str:
    """A round figure on an axis of speed."""
    return f"{value:.3g}×"


def _seconds(value: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs" if value else "0"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.4g}"
