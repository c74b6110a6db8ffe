"""Sweeps of trainings with several seeds: stages that are run unless their output is there, and figures over seeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import student_mean

from moviegen.runfolder import write_text

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


def over_seeds(name: str, values: Sequence[float], unit: str) -> Figure:
    """The mean of a figure's values, one a seed, with Student's interval."""
    low, high = student_mean(values) or (None, None)
    return Figure(name, sum(values) / len(values), low, high, len(values), unit, True)


def report(
    out: Path, figures: Sequence[Figure], count: str, paper: str, said: Callable[[Figure], str]
) -> None:
    """Write numbers.json and table.md into a folder, and print the table; arguments as of `table`."""
    write_numbers(out / NUMBERS, figures)
    write_text(out / "table.md", table(figures, count, paper, said))
    print(table(figures, count, paper, said))


def table(figures: Sequence[Figure], count: str, paper: str, said: Callable[[Figure], str]) -> str:
    """The figures in markdown, with what the paper said beside each.

    Args:
        count: what a figure's n counts.
        paper: head of the last column.
        said: its text beside a figure.
    """
    head = ("figure", "value", "95 % interval", count, f"paper: {paper}")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for figure in figures:
        interval = "" if figure.low is None else f"{figure.low:.3f} .. {figure.high:.3f}"
        lines.append(f"| {figure.name} | {figure.value:.3f} | {interval} | {figure.n} | {said(figure)} |")
    return "\n".join(lines) + "\n"
