"""Stages of a sweep: commands of the console that are run unless their output is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Call = Callable[[Sequence[str]], int]


def process(words: Sequence[str]) -> int:
    """Run one command of the console in a process of its own."""
    return subprocess.call([sys.executable, "-m", "moviegen.cli", *words])


def run_stage(call: Call, words: Sequence[str], output: Path) -> None:
    """Run a command unless its output is there; RuntimeError where it fails or leaves none."""
    if output.exists():
        return
    print(f"moviegen {' '.join(words)}", flush=True)
    code = call(words)
    if code or not output.exists():
        raise RuntimeError(f"`moviegen {' '.join(words)}` ended with code {code} and without {output}")
