"""A chart of several curves over one logarithmic or linear axis each, as an SVG file of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from moviegen_eval.report.markup import tag, text

COLORS = (
    "#1f5fa8",
    "#c2571a",
    "#2e8540",
    "#8a3fa0",
    "#a8323e",
    "#5a6b7b",
    "#b08900",
    "#0f8b8d",
    "#d04a8a",
    "#444444",
)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 620, 380, 70, 200, 34, 50
STYLE = """
text { font: 11px sans-serif; fill: #3a3d44; } .title { font-weight: bold; font-size: 13px; }
.axis { stroke: #c8c9c4; fill: none; } .tick { stroke: #ecece8; }
"""

Points = Sequence[tuple[float, float]]


def lines_svg(title: str, x_name: str, y_name: str, curves: Mapping[str, Points], log: bool = True) -> str:
    """An SVG document of named curves of (x, y) points; on logarithmic axes all numbers must be positive.

    Raises ValueError where there is nothing to draw, or a number that a logarithmic axis has no place for.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise ValueError(f"chart {title!r}: no curve has a point")
    if log and min(min(x, y) for x, y in points) <= 0:
        raise ValueError(f"chart {title!r}: a logarithmic axis needs positive numbers")
    place_x, ticks_x = _axis([x for x, _ in points], LEFT, WIDTH - RIGHT, log)
    place_y, ticks_y = _axis([y for _, y in points], HEIGHT - BOTTOM, TOP, log)
    parts = [f"<style>{STYLE}</style>", tag("text", text(title), x=LEFT, y=18, class_="title")]
    for value in ticks_x:
        x = f"{place_x(value):.1f}"
        parts.append(tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="tick"))
        parts.append(tag("text", f"{value:g}", x=x, y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    for value in ticks_y:
        y = place_y(value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="tick"))
        parts.append(tag("text", f"{value:g}", x=LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    parts.append(tag("path", d=f"M{LEFT},{TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", class_="axis"))
    parts.append(tag("text", text(x_name), x=LEFT, y=HEIGHT - 12))
    parts.append(tag("text", text(y_name), x=WIDTH - RIGHT, y=TOP - 8, text_anchor="end"))
    for index, (name, curve) in enumerate(curves.items()):
        parts += _curve(index, name, sorted(curve), place_x, place_y)
    return tag("svg", *parts, xmlns="http://www.w3.org/2000/svg", width=WIDTH, height=HEIGHT) + "\n"


def _curve(
    index: int, name: str, curve: Points, place_x: Callable[[float], float], place_y: Callable[[float], float]
) -> list[str]:
    color, dash = COLORS[index % len(COLORS)], "" if index < len(COLORS) else "5 3"
    spots = [(f"{place_x(x):.1f}", f"{place_y(y):.1f}") for x, y in curve]
    parts = []
    if spots:
        line = "M" + "L".join(f"{x},{y}" for x, y in spots)
        parts.append(
            tag("path", d=line, fill="none", stroke=color, stroke_width=1.6, stroke_dasharray=dash or "none")
        )
    parts += [tag("circle", cx=x, cy=y, r=2.6, fill=color) for x, y in spots]
    key_y = TOP + 14 * index + 6
    parts.append(tag("rect", x=WIDTH - RIGHT + 12, y=key_y - 8, width=10, height=8, fill=color))
    parts.append(tag("text", text(name), x=WIDTH - RIGHT + 28, y=key_y))
    return parts


def _axis(
    values: Sequence[float], start: float, end: float, log: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between two pixels, and the values that are labelled."""
    scale = math.log10 if log else float
    low, high = scale(min(values)), scale(max(values))
    if low == high:
        low, high = low - 0.5, high + 0.5

    def place(value: float) -> float:
        return start + (scale(value) - low) / (high - low) * (end - start)

    if not log:
        return place, [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return place, inside if len(inside) > 1 else [10**low, 10**high]
