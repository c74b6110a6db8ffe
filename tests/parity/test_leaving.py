"""A process that leaves its group in order ends well, also where a thread of gloo lacks a processor just then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_processes_that_leave_in_order_end_well_on_a_busy_processor(tmp_path: Path) -> None:
    """Of processes that do not, some are aborted here: experiments/faults."""
    words = ["experiments/faults/exits.py", "times=5", "hold=starve", "ways=leave", f"out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = {one["name"]: one for one in json.loads((tmp_path / "exits_starve.json").read_text())}
    assert [(one["value"], one["n"]) for one in figures.values()] == [(0, 10)] * 3, done.stdout
