"""`moviegen eval report --check`: what the inputs give now, held against the files that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moviegen_eval.files import read_text
from moviegen_eval.numbers import NUMBERS

MAX_SHOWN = 20


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Print every difference and raise ValueError with their number; return where there is none."""
    lines: list[str] = []
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            lines.append(f"{name}: is not there")
            continue
        found = read_text(path)
        if found == wanted:
            continue
        own = figure_differences(found, wanted) if name == NUMBERS else text_differences(found, wanted)
        lines += [f"{name}: {line}" for line in own or ["differs in its layout only"]]
    for line in lines[:MAX_SHOWN]:
        print(line)
    if lines:
        more = f" ({len(lines) - MAX_SHOWN} not shown)" if len(lines) > MAX_SHOWN else ""
        raise ValueError(f"{folder}: the report is not what its inputs give: {len(lines)} differences{more}")


def figure_differences(found: str, wanted: str) -> list[str]:
    """One line a figure that is absent, new or other."""
    tables = []
    for source in (found, wanted):
        try:
            tables.append({row["name"]: row for row in json.loads(source)})
        except (ValueError, TypeError, KeyError):
            return ["is not a list of figures"]
    lines = []
    for name in dict.fromkeys([*tables[0], *tables[1]]):
        there, now = (table.get(name) for table in tables)
        if there is None or now is None:
            lines.append(f"{name}: {'is not there' if there is None else 'does not come out any more'}")
        elif there != now:
            lines.append(f"{name}: {_changes(there, now)}")
    return lines


def _changes(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in now if there.get(key) != now[key]]
    return ", ".join(f"{key} is {there.get(key)}, comes out as {now[key]}" for key in keys)


def text_differences(found: str, wanted: str) -> list[str]:
    """The first line that differs, cut to what is of use."""
    old, new = found.splitlines(), wanted.splitlines()
    for number, (one, other) in enumerate(zip(old, new, strict=False), 1):
        if one != other:
            start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            start = max(0, start - 20)
            return [
                f"line {number}: is {one[start : start + 60]!r}, comes out as {other[start : start + 60]!r}"
            ]
    return [f"has {len(old)} lines, comes out with {len(new)}"]
