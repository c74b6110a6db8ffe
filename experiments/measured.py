"""On what machine and how busy a time was measured, and its table in a README: for experiments about speed."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"


def machine() -> dict[str, float]:
    """Cores, and how many processes wanted to run in the last minute: near 0 on an idle machine. Call it first."""
    return {"cores": len(os.sched_getaffinity(0)), "load_before": round(os.getloadavg()[0], 2)}


def today() -> str:
    """The date of a measurement."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def fill(readme: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Replace the table between the two marks of a README; what was measured before is lost, so commit it first."""
    text = readme.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme}: has no lines {BEGIN} and {END}")
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    readme.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")
