"""The plot of accuracy against speed, drawn for each of the two widths at which its names are placed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from artifact.intervals import Interval
from measure.records import Role
from report.charts import both, ends, hue, multiple, speed
from report.figures import started
from report.labels import LINE, Box, Label, place
from report.pareto import front
from report.scales import Scale
from report.svg import element
from report.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate in the plot of accuracy against speed; `reason` says why it cannot be recommended."""

    name: str
    hue: str
    speed: Interval
    accuracy: Interval
    reason: str | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """The size of a drawing and the margins around its axes, in CSS pixels at full size; `ticks` is how many figures
    its horizontal axis has room for."""

    name: str
    width: int
    height: int
    ticks: int
    left: int = 52
    right: int = 12
    top: int = 24
    bottom: int = 44

    @property
    def room(self) -> Box:
        return Box(self.left, self.top, self.width - self.right, self.height - self.bottom)


WIDE = Sheet("wide", 960, 400, 6)
NARROW = Sheet("narrow", 356, 420, 4)


def tradeoff_points(verdict: Verdict) -> tuple[Point, ...]:
    """Candidates whose speed and accuracy are both known. The accuracy's interval is that of its difference from the
    reference, which is what the gate looks at."""
    return tuple(
        Point(
            name=row.name,
            hue=hue(row),
            speed=found,
            accuracy=Interval(
                row.quality.accuracy_fraction,
                row.quality.accuracy_fraction - row.quality.difference + row.quality.difference_low,
                row.quality.accuracy_fraction - row.quality.difference + row.quality.difference_high,
            ),
            reason=row.reason,
        )
        for row in verdict.rows
        if row.measured and row.quality and row.role is not Role.CONTROL and (found := speed(row))
    )


def best_tradeoffs(points: Sequence[Point]) -> tuple[Point, ...]:
    """Those on the Pareto front, the slowest first: no other that may be recommended is faster and as accurate, or more
    accurate and as fast."""
    allowed = [point for point in points if point.reason is None]
    found = front([(point.speed.estimate, point.accuracy.estimate) for point in allowed])
    return tuple(sorted((allowed[index] for index in found), key=lambda point: (point.speed.estimate, point.name)))


def tradeoff(
    points: Sequence[Point], floors: Sequence[float], baseline: str, sheet: Sheet, measure: str = "accuracy"
) -> Markup:
    """Accuracy against speed with both intervals, the area under the Pareto front, and a line for each floor; `measure`
    is what accuracy is called.

    What cannot be recommended is hollow. A name that finds no room is told below the drawing.
    """
    plot = _Plot.around(points, floors, sheet, measure)
    best = best_tradeoffs(points)
    order = sorted(points, key=lambda point: (point not in best, -point.speed.estimate, point.name))
    gates = [_Gate(plot, floor) for floor in floors]
    labels = place(
        [plot.name(point) for point in order],
        [plot.place(point) for point in order],
        sheet.room,
        [gate.box for gate in gates],
    )
    named = list(zip(order, labels, strict=True))
    drawing = element(
        "svg",
        element("title", _told(best, measure)),
        plot.steps(best),
        *plot.frame(baseline),
        *(part for gate in gates for part in gate.parts),
        *(part for point in order for part in plot.whiskers(point)),
        *(plot.dot(point) for point in order),
        *(part for point, label in named if label for part in plot.label(point, label, strong=point in best)),
        viewBox=f"0 0 {sheet.width} {sheet.height}",
        class_="plot",
        role="img",
    )
    left_out = ", ".join(point.name for point, label in named if label is None)
    note = (
        (element("p", f"Drawn without their names, for want of room: {left_out}.", class_="note"),) if left_out else ()
    )
    return element("div", drawing, *note, class_=sheet.name)


def _told(best: Sequence[Point], measure: str) -> str:
    each = ", ".join(f"{item.name} ({item.accuracy.estimate:.3f} at {item.speed.estimate:.2f}×)" for item in best)
    return f"{started(measure)} against speed. Not beaten in both: {each or 'none'}."


@dataclass(frozen=True, slots=True)
class _Plot:
    """Two axes on a sheet."""

    sheet: Sheet
    speed: Scale
    accuracy: Scale
    measure: str

    @classmethod
    def around(cls, points: Sequence[Point], floors: Sequence[float], sheet: Sheet, measure: str) -> "_Plot":
        speed = Scale.logarithmic([1.0, *(end for point in points for end in ends(point.speed))])
        return cls(sheet, speed, _accuracy_scale(points, floors), measure)

    def x(self, speed: float) -> float:
        return self.sheet.room.left + self.speed.share(speed) * (self.sheet.room.right - self.sheet.room.left)

    def y(self, accuracy: float) -> float:
        return self.sheet.room.bottom - self.accuracy.share(accuracy) * (self.sheet.room.bottom - self.sheet.room.top)

    def place(self, point: Point) -> tuple[float, float]:
        return self.x(point.speed.estimate), self.y(point.accuracy.estimate)

    def name(self, point: Point) -> str:
        """Its name; with its accuracy where that is too low for the axis."""
        if point.accuracy.estimate >= self.accuracy.low:
            return point.name
        return f"{point.name}, {point.accuracy.estimate:.3f} ↓"

    def frame(self, baseline: str) -> Iterable[Markup]:
        """Lines and figures of both axes, and what they are."""
        room = self.sheet.room
        for value in self.accuracy.ticks(7):
            y = self.y(value)
            yield element("line", x1=room.left, x2=room.right, y1=y, y2=y, class_="grid")
            yield element("text", f"{value:.3f}", x=room.left - 8, y=y, dy="0.35em", text_anchor="end")
        for value in self.speed.ticks(self.sheet.ticks):
            x = self.x(value)
            yield element("line", x1=x, x2=x, y1=room.bottom, y2=room.bottom + 5, class_="tick")
            yield element("text", multiple(value), x=x, y=room.bottom + 18, text_anchor="middle")
        yield element("line", x1=room.left, x2=room.right, y1=room.bottom, y2=room.bottom, class_="tick")
        yield element("text", self.measure, x=0, y=12)
        along = f"speed as a multiple of {baseline}"
        yield element("text", along, x=room.right, y=self.sheet.height - 6, text_anchor="end")

    def steps(self, best: Sequence[Point]) -> Markup:
        """The area of what some candidate of the front reaches or beats."""
        if not best:
            return Markup("")
        places = [self.place(point) for point in best]
        corners = "".join(f"V{y:.1f}H{x:.1f}" for x, y in places)
        room = self.sheet.room
        return element("path", d=f"M{room.left} {room.bottom}{corners}V{room.bottom}Z", class_="front")

    def whiskers(self, point: Point) -> Iterable[Markup]:
        """Both intervals of a point."""
        x, y = self.place(point)
        for low, high in both(point.accuracy):
            line = {"y1": self.y(low), "y2": self.y(high)}
            yield element("line", x1=x, x2=x, **line, class_=f"whisker {point.hue}")
        for low, high in both(point.speed):
            line = {"x1": self.x(low), "x2": self.x(high)}
            yield element("line", y1=y, y2=y, **line, class_=f"whisker {point.hue}")

    def dot(self, point: Point) -> Markup:
        x, y = self.place(point)
        kind = "dot" if point.reason is None else "hollow"
        title = f"{point.name}: {point.speed.estimate:.2f}×, {self.measure} {point.accuracy.estimate:.3f}"
        return element("circle", element("title", title), cx=x, cy=y, r=5, class_=f"{kind} {point.hue}")

    def label(self, point: Point, label: Label, *, strong: bool) -> Iterable[Markup]:
        """A name, and a thin line to it where it does not stand beside its point."""
        x, y = self.place(point)
        if label.lift:
            edge = label.y - LINE / 2 * (1 if label.lift > 0 else -1)
            yield element("line", x1=x, y1=y, x2=label.x, y2=edge, class_="leader")
        words = {"class_": "name strong" if strong else "name", "text_anchor": label.anchor, "dy": "0.35em"}
        yield element("text", self.name(point), x=label.x, y=label.y, **words)


class _Gate:
    """The line of one floor and its name at the left: below the line, or above where the axis is near."""

    def __init__(self, plot: _Plot, floor: float) -> None:
        room, y = plot.sheet.room, plot.y(floor)
        middle = y + LINE / 2 * (1 if y + LINE < room.bottom else -1)
        self.box = Box(room.left, middle - LINE / 2, room.left + 80, middle + LINE / 2)
        self.parts = (
            element("line", x1=room.left, x2=room.right, y1=y, y2=y, class_="gate"),
            element("text", f"gate {floor:.3f}", x=room.left + 4, y=middle, dy="0.35em", class_="gate"),
        )


def _accuracy_scale(points: Sequence[Point], floors: Sequence[float]) -> Scale:
    """Around what passed and the gate. What lies farther below than twice the height of that would flatten the rest,
    and is put at the lower end."""
    passed = [point.accuracy for point in points if point.reason is None]
    fine = [*floors, *(end for accuracy in passed for end in ends(accuracy))]
    least = min(fine) - 2 * (max(fine) - min(fine)) if len(fine) > len(floors) else 0.0
    return Scale.linear([*fine, *(point.accuracy.estimate for point in points if point.accuracy.estimate >= least)])
