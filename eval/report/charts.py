"""Charts as inline SVG: figures with their intervals, and loss curves. Colors come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from moviegen_eval.curves import Curve
from moviegen_eval.numbers import Figure
from moviegen_eval.report.markup import tag, text

ROW, LABEL, WIDTH, RIGHT = 26, 190, 760, 60
MAX_POINTS = 400


def figure_chart(figures: Sequence[Figure], bars: Mapping[str, float]) -> str:
    """Proportions as dots with intervals on 0..1; floor to ceiling is a band, a bar to reach a tick.

    Empty when there is no proportion among the figures.
    """
    by_name = {figure.name: figure for figure in figures}
    shares = [
        f for f in figures if f.unit.startswith("share") and not f.name.endswith(("/floor", "/ceiling"))
    ]
    if not shares:
        return ""
    height = ROW * len(shares) + 30
    parts = [_grid_line(share, height) for share in (0, 0.25, 0.5, 0.75, 1)]
    for index, figure in enumerate(shares):
        floor, ceiling = (by_name.get(f"{figure.name}/{end}") for end in ("floor", "ceiling"))
        parts.append(_chart_row(figure, ROW * index + 18, floor, ceiling, bars.get(figure.name)))
    return svg(WIDTH, height, "Accuracy by attribute with 95 % intervals", parts)


def _x(share: float) -> float:
    return LABEL + share * (WIDTH - LABEL - RIGHT)


def _grid_line(share: float, height: int) -> str:
    x = f"{_x(share):.1f}"
    line = tag("line", x1=x, x2=x, y1=4, y2=height - 20, class_="axis")
    return line + tag("text", f"{share:g}", x=x, y=height - 6, text_anchor="middle")


def _chart_row(
    figure: Figure, y: int, floor: Figure | None, ceiling: Figure | None, bar: float | None
) -> str:
    parts = [tag("text", text(figure.name), x=0, y=y + 4)]
    if floor is not None:
        left, right = _x(floor.value), _x(ceiling.value if ceiling else 1.0)
        parts.append(
            tag(
                "rect",
                x=f"{left:.1f}",
                y=y - 7,
                width=f"{max(right - left, 0):.1f}",
                height=14,
                class_="range",
            )
        )
    if figure.low is not None and figure.high is not None:
        ends = {"x1": f"{_x(figure.low):.1f}", "x2": f"{_x(figure.high):.1f}"}
        parts.append(tag("line", **ends, y1=y, y2=y, class_="interval"))
    if bar is not None:
        x = f"{_x(bar):.1f}"
        parts.append(tag("line", x1=x, x2=x, y1=y - 9, y2=y + 9, class_="bar"))
    parts.append(tag("circle", cx=f"{_x(figure.value):.1f}", cy=y, r=4.5, class_="value"))
    parts.append(tag("text", f"{figure.value:.3f}", x=WIDTH, y=y + 4, text_anchor="end"))
    return "".join(parts)


def curve_chart(title: str, curves: Mapping[str, Curve], width: int = 360, height: int = 200) -> str:
    """Up to two curves over steps; a logarithmic axis where positive values span more than a factor of 20."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    scale = math.log10 if log else float
    bottom, top = scale(low), scale(high)
    if bottom == top:
        bottom, top = bottom - 0.5, top + 0.5
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    left, right, upper, lower = 52, width - 12, 14, height - 28

    def place(step: float, value: float) -> str:
        x = left + (step - first) / max(last - first, 1e-9) * (right - left)
        y = lower - (scale(value) - bottom) / (top - bottom) * (lower - upper)
        return f"{x:.1f},{y:.1f}"

    parts = [tag("path", d=f"M{left},{upper}V{lower}H{right}", class_="axis")]
    for share in (0.0, 0.5, 1.0):
        level = bottom + share * (top - bottom)
        label = f"{10**level if log else level:.3g}"
        parts.append(
            tag("text", label, x=left - 6, y=f"{lower - share * (lower - upper) + 4:.1f}", text_anchor="end")
        )
    parts.append(tag("text", f"{first:g}", x=left, y=height - 10))
    parts.append(tag("text", f"step {last:g}", x=right, y=height - 10, text_anchor="end"))
    for index, (name, curve) in enumerate(curves.items()):
        style = "line" if index == 0 else "line second"
        path = "M" + "L".join(place(*point) for point in thin(curve))
        parts.append(tag("path", d=path, class_=style))
        key = "key-line" if index == 0 else "key-second"
        parts.append(tag("text", text(name), x=right, y=upper + 14 * index, text_anchor="end", class_=key))
    caption = tag("figcaption", text(title + (" (logarithmic)" if log else "")))
    return tag("figure", svg(width, height, title, parts), caption)


def thin(curve: Curve, limit: int = MAX_POINTS) -> Curve:
    """At most `limit` points: means over runs of equal length, so that noise does not hide the trend."""
    if len(curve) <= limit:
        return list(curve)
    size = -(-len(curve) // limit)
    groups = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    """A picture of a size in pixels that shrinks with the page, with a label for who cannot see it."""
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )
