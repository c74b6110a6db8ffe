"""The seam to other projects' metrics: prepare files, run their program in its own environment, read its results.

`prepare` writes what the program reads (linked videos under the names that it wants, prompt files) and `command.sh`,
the very commands to run. `run` starts them where `python` names that environment's interpreter; else a person does.
`read` turns what the program wrote into scores with manifests, like those of our own metrics.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from moviegen_eval.arms import Arm
from moviegen_eval.files import write_atomically
from moviegen_eval.scores import Score
from moviegen_eval.stats import bootstrap_mean
from moviegen_eval.suites import Suite, prompts_digest

from moviegen import interrupts

NOT_A_NAME = str.maketrans({"/": "_", "\0": "_"})


@dataclass(frozen=True)
class External:
    """Where another project's program lives."""

    repository: str  # folder of its checkout
    python: str = "python"  # the interpreter of its environment
    version: str = "not stated"  # commit or version, printed with every score
    seconds: float | None = None  # of clips, for programs that need it


class Adapter(Protocol):
    """One benchmark behind files."""

    name: str

    def prepare(self, arm: Arm, suite: Suite, folder: Path, external: External) -> list[list[str]]:
        """Write inputs under `folder`; return the commands to run, in order."""
        ...

    def read(self, arm: Arm, suite: Suite, folder: Path) -> Result:
        """Read what the program wrote. Raises ValueError of one line where it wrote nothing or something else."""
        ...


@dataclass(frozen=True)
class Result:
    """What a benchmark said of one arm."""

    samples: dict[str, dict[str, float]] = field(default_factory=dict)  # file name -> output -> value
    totals: dict[str, float] = field(default_factory=dict)  # output -> value without values of single clips
    units: dict[str, tuple[str, bool]] = field(default_factory=dict)  # output -> (unit, higher is better)
    remarks: tuple[str, ...] = ()


def write_commands(folder: Path, commands: Sequence[Sequence[str]], where: str) -> None:
    """Write `command.sh`: what to run by hand, or what `run_commands` runs."""
    lines = ["#!/bin/sh", "set -e", f"cd {shlex.quote(where)}", *(shlex.join(line) for line in commands)]
    write_atomically(folder / "command.sh", "\n".join(lines) + "\n")


def run_commands(commands: Sequence[Sequence[str]], where: str, log: Path) -> None:
    """Run the commands in the checkout with their output in a log; ValueError names the one that failed.

    The environment is passed on without our own Python paths, which would shadow the other project's packages.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        for command in commands:
            try:
                done = interrupts.run_child(
                    list(command), cwd=where, env=kept, stdout=output, stderr=subprocess.STDOUT
                )
            except OSError as error:
                raise ValueError(f"{command[0]}: cannot be started ({error.strerror})") from None
            if done.returncode:
                raise ValueError(f"{shlex.join(command)[:120]}: ended with {done.returncode}; see {log}")


def link_videos(arm: Arm, folder: Path, names: Mapping[str, str]) -> None:
    """Hard-link (or copy) the first try of each prompt under the name that a program wants."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for prompt, name in names.items():
        source = arm.videos[prompt][0].path
        target = folder / name
        try:
            target.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, target)


def file_name(text: str, suffix: str, limit: int = 180) -> str:
    """A prompt as a file name, as VBench and others want it: cut, without slashes."""
    return text.translate(NOT_A_NAME)[:limit] + suffix


def to_scores(
    arm: Arm, suite: Suite, name: str, external: External, result: Result, count: int, seed: int
) -> list[Score]:
    """Scores with intervals over prompts; a total without values of clips has no interval."""
    ids = sorted(arm.videos)
    manifest: dict[str, Any] = {
        "metric": name,
        "code": external.version,
        "preprocessing": "the program's own",
        "weights": {},
        "prompts": prompts_digest([(key, suite.by_id[key].text) for key in ids]),
        "remarks": list(result.remarks),
    }
    scores = []
    outputs = list(dict.fromkeys(output for row in result.samples.values() for output in row))
    for output in outputs:
        values = np.array([row[output] for row in result.samples.values() if output in row])
        bounds = bootstrap_mean(values, count, seed) or (None, None)
        unit, higher = result.units.get(output, ("score", True))
        scores.append(
            Score(
                arm.name,
                name,
                f"{name}.{output}",
                float(values.mean()),
                *bounds,
                len(values),
                unit,
                higher,
                manifest,
            )
        )
    for output, value in result.totals.items():
        unit, higher = result.units.get(output, ("score", True))
        n = len(result.samples) or len(ids)
        scores.append(Score(arm.name, name, f"{name}.{output}", value, None, None, n, unit, higher, manifest))
    return scores
