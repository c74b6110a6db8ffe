"""Preference as inline SVG, readable in grey: a forest plot, stacked bars, and the concept by motion map.

Shapes and hatching tell things apart, color only helps: win is solid, tie empty, loss hatched; a published figure is
an empty diamond; a slice with few items is dotted and pale.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from moviegen_eval.report.charts import svg
from moviegen_eval.report.markup import tag, text
from moviegen_eval.report.published import Published
from moviegen_eval.study.analysis import Analysis, PairResult, SliceResult

ROW, LABEL, PLOT, VALUES = 26, 170, 470, 190
WIDTH = LABEL + PLOT + VALUES


def hatch(name: str) -> str:
    """The definition of a hatching; `name` is unique on the page."""
    ground = tag("rect", width=5, height=5, class_="hatch-ground")
    line = tag("rect", width=2, height=5, class_="hatch-line")
    sizes = {"width": 5, "height": 5, "patternUnits": "userSpaceOnUse", "patternTransform": "rotate(45)"}
    return tag("defs", tag("pattern", ground, line, id_=name, **sizes))


def _filled(style: str, name: str, **place: object) -> str:
    """A rectangle of a style; a loss is hatched."""
    fill = f"url(#{name})" if style == "loss" else None
    return tag("rect", **place, class_=style, fill=fill)


def _hatch_name(*words: str) -> str:
    return "hatch-" + re.sub(r"[^A-Za-z0-9]+", "-", " ".join(words))


def forest(results: Sequence[PairResult], published: Published | None = None) -> str:
    """Net win rates with intervals of one comparison, the largest first, all forests on one range."""
    rows = sorted(results, key=lambda one: -one.net.value)
    height = ROW * len(rows) + 44
    parts = []
    for level in (-100, -50, 0, 50, 100):
        x = f"{_x(level):.1f}"
        style = "zero" if level == 0 else "axis"
        parts.append(tag("line", x1=x, x2=x, y1=18, y2=height - 24, class_=style))
        parts.append(tag("text", f"{level:+d}" if level else "0", x=x, y=height - 8, text_anchor="middle"))
    first, second = rows[0].first, rows[0].second
    parts.append(tag("text", text(f"{second} better"), x=LABEL, y=11, class_="strong"))
    parts.append(
        tag("text", text(f"{first} better"), x=LABEL + PLOT, y=11, text_anchor="end", class_="strong")
    )
    for number, one in enumerate(rows):
        parts.append(_forest_row(one, ROW * number + 34, published))
    return svg(WIDTH, height, f"Net win rate of {first} against {second} by axis, 95 % intervals", parts)


def _x(net: float) -> float:
    return LABEL + (net + 100) / 200 * PLOT


def _forest_row(one: PairResult, y: int, published: Published | None) -> str:
    net = one.net
    parts = [tag("text", text(one.axis.replace("_", " ")), x=0, y=y + 4, class_="strong")]
    ends = {"x1": f"{_x(net.low):.1f}", "x2": f"{_x(net.high):.1f}"}
    parts.append(tag("line", **ends, y1=y, y2=y, class_="interval"))
    for end in ends.values():
        parts.append(tag("line", x1=end, x2=end, y1=y - 4, y2=y + 4, class_="interval"))
    other = published.net(one.axis, one.second) if published else None
    if other is not None:
        x = _x(other)
        corners = f"{x:.1f},{y - 6} {x + 6:.1f},{y} {x:.1f},{y + 6} {x - 6:.1f},{y}"
        parts.append(tag("polygon", points=corners, class_="published"))
    marker = tag("rect", x=f"{_x(net.value) - 4:.1f}", y=y - 4, width=8, height=8, class_="value")
    parts.append(
        marker if one.verdict == "significant" else marker.replace('class="value"', 'class="value open"')
    )
    words = f"{net.value:+.1f} [{net.low:+.1f}, {net.high:+.1f}]  n {one.n_items}"
    parts.append(tag("text", text(words), x=WIDTH, y=y + 4, text_anchor="end", class_="strong"))
    return "".join(parts)


def bars(results: Sequence[PairResult]) -> str:
    """Wins, ties and losses of one comparison as stacked bars, in the order of the forest."""
    rows = sorted(results, key=lambda one: -one.net.value)
    height = ROW * len(rows) + 30
    name = _hatch_name("bars", rows[0].first, rows[0].second)
    parts = [hatch(name), _legend(rows[0], name)]
    for number, one in enumerate(rows):
        y = ROW * number + 26
        parts.append(tag("text", text(one.axis.replace("_", " ")), x=0, y=y + 13, class_="strong"))
        left = float(LABEL)
        for count, style in ((one.wins, "win"), (one.ties, "tie"), (one.losses, "loss")):
            width = PLOT * count / max(one.n_items, 1)
            parts.append(_filled(style, name, x=f"{left:.1f}", y=y, width=f"{width:.1f}", height=18))
            if width > 26:
                middle = f"{left + width / 2:.1f}"
                label = tag(
                    "text", str(count), x=middle, y=y + 13, text_anchor="middle", class_=f"on-{style}"
                )
                parts.append(_plate(middle, y, style) + label)
            left += width
        words = f"{one.wins}-{one.ties}-{one.losses} of {one.n_items}"
        parts.append(tag("text", text(words), x=WIDTH, y=y + 13, text_anchor="end", class_="strong"))
    return svg(WIDTH, height, f"Wins, ties and losses of {rows[0].first} against {rows[0].second}", parts)


def _plate(middle: str, y: int, style: str) -> str:
    """An empty ground behind a number that stands on hatching."""
    if style != "loss":
        return ""
    return tag("rect", x=f"{float(middle) - 13:.1f}", y=y + 3, width=26, height=12, class_="plate")


def _legend(one: PairResult, name: str) -> str:
    parts, x = [], LABEL
    for style, words in (("win", f"{one.first} better"), ("tie", "tie"), ("loss", f"{one.second} better")):
        parts.append(_filled(style, name, x=x, y=3, width=14, height=12))
        parts.append(tag("text", text(words), x=x + 19, y=13, class_="strong"))
        x += 40 + 7 * len(words)
    return "".join(parts)


CELL_W, CELL_H, HEAD = 118, 40, 150


def heat_map(analysis: Analysis, axis: str, first: str, second: str, rows_tag: str, columns_tag: str) -> str:
    """Net win rate by two tags of one axis and pair; empty where there are no such slices."""
    cells = {
        (dict(one.tags)[rows_tag], dict(one.tags)[columns_tag]): one
        for one in analysis.slices
        if (one.axis, one.first, one.second) == (axis, first, second)
        and {name for name, _ in one.tags} == {rows_tag, columns_tag}
    }
    if not cells:
        return ""
    columns = _ordered({column for _, column in cells})
    sums = {row: sum(one.n_items for (name, _), one in cells.items() if name == row) for row, _ in cells}
    rows = sorted(sums, key=lambda row: (-sums[row], row))
    width, height = HEAD + CELL_W * len(columns), CELL_H * len(rows) + 26
    name = _hatch_name("map", axis, first, second)
    parts = [hatch(name)]
    for number, column in enumerate(columns):
        x = HEAD + CELL_W * number + CELL_W / 2
        parts.append(tag("text", text(column), x=f"{x:.1f}", y=14, text_anchor="middle", class_="strong"))
    for line, row in enumerate(rows):
        y = 22 + CELL_H * line
        parts.append(tag("text", text(row), x=0, y=y + 24, class_="strong"))
        for number, column in enumerate(columns):
            parts.append(_cell(cells.get((row, column)), HEAD + CELL_W * number, y, name))
    return svg(width, height, f"Net win rate on {axis} by {rows_tag} and {columns_tag}", parts)


def _ordered(values: set[str]) -> list[str]:
    levels = ("low", "medium", "high")
    return sorted(values, key=lambda value: (levels.index(value) if value in levels else len(levels), value))


def _cell(one: SliceResult | None, x: int, y: int, name: str) -> str:
    """A cell: a bar from its middle by the net win rate, the figure with its sign, and n."""
    size = {"x": x + 2, "y": y + 2, "width": CELL_W - 4, "height": CELL_H - 4}
    if one is None:
        return tag("rect", **size, class_="cell empty")
    style = "cell small" if one.small else "cell"
    reach = (CELL_W - 8) / 2 * min(abs(one.net.value), 100) / 100
    middle = x + CELL_W / 2
    left = middle if one.net.value >= 0 else middle - reach
    fill = "win" if one.net.value >= 0 else "loss"
    bar = _filled(fill, name, x=f"{left:.1f}", y=y + CELL_H - 11, width=f"{max(reach, 0.5):.1f}", height=6)
    line = tag("line", x1=middle, x2=middle, y1=y + CELL_H - 13, y2=y + CELL_H - 3, class_="zero")
    words = f"{one.net.value:+.0f}  n {one.n_items}" + (" (few)" if one.small else "")
    label = tag("text", text(words), x=middle, y=y + 19, text_anchor="middle", class_="strong")
    group = tag("rect", **size, class_=style) + bar + line + label
    return tag("g", group, class_="faint") if one.small else group
