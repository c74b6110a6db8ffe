"""Figures and curves from training logs: the `metrics.csv` files that Lightning's CSVLogger writes.

A row holds the columns logged at one step, the others empty. A resumed run leaves several files; they are
joined by step, and where two files have a step the one written later counts.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.numbers import Figure, at_level

Curve = list[tuple[float, float]]  # (step, value), by step
TAKES = {"last": lambda values: values[-1], "best_low": min, "best_high": max, "median": statistics.median}
_AXES = ("step", "epoch")


def read_curves(run: Path | str) -> dict[str, Curve]:
    """All columns of every `metrics.csv` under the run folder as curves; empty when there is none."""
    columns: dict[str, dict[float, float]] = {}
    files = sorted(Path(run).glob("**/metrics.csv"), key=lambda path: (path.stat().st_mtime_ns, str(path)))
    for path in files:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    _add_row(columns, row)
        except (UnicodeDecodeError, csv.Error, OSError) as error:
            raise ValueError(f"{path}: is not a csv log ({error})") from None
    return {name: sorted(points.items()) for name, points in columns.items()}


def _add_row(columns: dict[str, dict[float, float]], row: Mapping[str | None, Any]) -> None:
    step = _number(row.get("step"))
    if step is None:
        return
    for name, text in row.items():
        value = _number(text)
        if name and name not in _AXES and value is not None:
            columns.setdefault(name, {})[step] = value


def _number(text: Any) -> float | None:
    """The finite number in a cell; None for an empty, broken or non-finite one."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def csv_figures(
    runs: Mapping[str, str], wanted: Sequence[Mapping[str, Any]], level: int | None = None
) -> list[Figure]:
    """Figures `<run>/<column>` from the runs' logs, for the columns that a run has.

    Each entry of `wanted` has `column`, `unit`, `higher_is_better` and `take`: "last", "best_low",
    "best_high" or "median" of the logged values. The units name the toyworld `level`, where there is one.
    Raises ValueError for another `take` or key.
    """
    for entry in wanted:
        if set(entry) != {"column", "take", "unit", "higher_is_better"} or entry["take"] not in TAKES:
            keys = "column, unit, higher_is_better and take (one of " + ", ".join(TAKES) + ")"
            raise ValueError(f"csv_figures: {dict(entry)} must have exactly {keys}")
    figures = []
    for run, folder in runs.items():
        curves = read_curves(folder)
        for entry in wanted:
            values = [value for _, value in curves.get(entry["column"], [])]
            if values:
                value = float(TAKES[entry["take"]](values))
                name = f"{run}/{entry['column']}"
                figure = Figure(name, value, None, None, 1, entry["unit"], entry["higher_is_better"])
                figures.append(at_level(figure, level))
    return figures
