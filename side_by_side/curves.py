"""The losses of several trainings as one drawing."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from report.scales import Scale
from report.svg import element

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 48, 120, 16, 36
SMOOTHING = 0.04
"""Share of the steps that each point of a curve is the mean of."""

COLOURS = ("#1f5fa8", "#c2571a", "#2c7d4f", "#8b3a8f", "#8a6d00", "#555555")
STYLE = "font: 12px system-ui, sans-serif"


def draw(losses: Mapping[str, NDArray[np.float64]]) -> str:
    """An SVG of the running mean of each setting's losses over the steps; at least one setting."""
    curves = {name: smooth(values) for name, values in losses.items()}
    steps = Scale.from_zero([float(len(values)) for values in losses.values()])
    heights = Scale.linear([float(end) for curve in curves.values() for end in (curve.min(), curve.max())])
    across = [
        _text(f"{tick:,.0f}", _x(steps, tick), HEIGHT - BOTTOM + 16, "middle") for tick in steps.ticks(8) if tick > 0
    ]
    upwards = [
        part
        for tick in heights.ticks(6)
        for part in (
            element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_y(heights, tick), y2=_y(heights, tick), stroke="#ddd"),
            _text(f"{tick:g}", LEFT - 6, _y(heights, tick) + 4, "end"),
        )
    ]
    lines, taken = [], list[float]()
    for (name, curve), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        offset = len(losses[name]) - len(curve)
        points = " ".join(
            f"{_x(steps, offset / 2 + place + 1):.1f},{_y(heights, value):.1f}" for place, value in enumerate(curve)
        )
        lines.append(element("polyline", points=points, fill="none", stroke=colour, stroke_width=1.5))
        at = _free(_y(heights, float(curve[-1])), taken)
        lines.append(_text(name, WIDTH - RIGHT + 6, at + 4, "start", colour))
    axes = (_text("step", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "middle"), _text("loss", LEFT - 6, TOP, "end"))
    drawing = element(
        "svg",
        element("title", "The loss of every step, as a running mean"),
        *(*upwards, *across, *axes, *lines),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        style=STYLE,
    )
    return f"{drawing}\n"


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of every few neighbours."""
    width = max(1, round(SMOOTHING * len(values)))
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


def _x(scale: Scale, step: float) -> float:
    return LEFT + scale.share(step) * (WIDTH - LEFT - RIGHT)


def _y(scale: Scale, loss: float) -> float:
    return HEIGHT - BOTTOM - scale.share(loss) * (HEIGHT - TOP - BOTTOM)


def _free(wanted: float, taken: list[float]) -> float:
    """A height for a label that no other label has."""
    at = wanted
    while any(abs(at - other) < 14 for other in taken):
        at -= 14
    taken.append(at)
    return at


def _text(words: str, x: float, y: float, anchor: str, colour: str = "#333") -> Markup:
    return element("text", words, x=x, y=y, text_anchor=anchor, fill=colour)
