"""Sweeps of trainings with several seeds: stages that are run unless their output is there, and figures over seeds.

Beside each output stands the command that made it: an output of other settings is never taken for that of these.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import student_mean

from moviegen import cli
from moviegen.config import compose, validate
from moviegen.runfolder import read_json, write_json, write_text

Call = Callable[[Sequence[str]], int]
SAMPLING = ("sampler.", "num_threads=")  # how those overrides begin that commands which sample take too


def process(words: Sequence[str]) -> int:
    """Run one command of the console in a process of its own."""
    return subprocess.call([sys.executable, "-m", "moviegen.cli", *words])


def run_stage(call: Call, words: Sequence[str], output: Path) -> None:
    """Run a command unless its output is there; RuntimeError where it fails or leaves none.

    An output that another command made ends the program; one with no command beside it is taken as it is.
    """
    note = output.with_name(f"{output.name}.command.json")
    if output.exists():
        _check_same(output, read_json(note)["command"] if note.is_file() else list(words), words)
        return
    print(f"moviegen {' '.join(words)}", flush=True)
    code = call(words)
    if code or not output.exists():
        raise RuntimeError(f"`moviegen {' '.join(words)}` ended with code {code} and without {output}")
    write_json(note, {"command": list(words)})


def _check_same(output: Path, before: Sequence[str], now: Sequence[str]) -> None:
    if list(before) != list(now):
        first, second = (
            " ".join(word for word in one if word not in other) or "without it"
            for one, other in ((before, now), (now, before))
        )
        raise SystemExit(
            f"{output} was made by other settings ({first}; now {second}); choose another --out or delete it"
        )


def check_command(words: Sequence[str]) -> None:
    """Compose a command without running it; UserError for a key or a value that it does not take."""
    name, overrides = cli.split_command(list(words))
    config = cli.COMMANDS[str(name)].config
    assert config is not None
    validate(compose(config, overrides))


def of_sampling(overrides: Sequence[str]) -> list[str]:
    """Those overrides that hold for commands which sample, too."""
    return [word for word in overrides if word.startswith(SAMPLING)]


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
