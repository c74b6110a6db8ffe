"""`numbers.json`: every figure that a run prints, as a list of flat records with fixed keys.

Names are paths such as `t2v/colour`; floor and ceiling of a figure are `<name>/floor` and `<name>/ceiling`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from moviegen_eval.files import read_json, write_atomically
from moviegen_eval.records import parse_record

NUMBERS = "numbers.json"
_NAME = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)+")


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval; `low` and `high` are None where there is none.

    Raises ValueError when the name is not a path, a number is not finite, or the interval excludes the value.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int  # observations (clips, prompts) behind the value
    unit: str
    higher_is_better: bool

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"figure name {self.name!r} is not a path such as t2v/colour")
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high) if x is not None):
            raise ValueError(f"figure {self.name}: {self.value}, {self.low}, {self.high} must be finite")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"figure {self.name}: low is {self.low} but high is {self.high}")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"figure {self.name}: {self.value} lies outside {self.low}..{self.high}")
        if self.n < 0:
            raise ValueError(f"figure {self.name}: n is {self.n}; expected 0 or more")


def at_level(figure: Figure, level: int | None) -> Figure:
    """The figure, its unit naming the level of the toyworld clips behind it; as it is where there is no level."""
    if level is None:
        return figure
    said = f"toyworld level {level}"
    return replace(figure, unit=f"{figure.unit}, {said}" if figure.unit else said)


def numbers_json(figures: Sequence[Figure], where: Path | str = NUMBERS) -> str:
    """The text of a numbers.json; a name given twice raises ValueError."""
    twice = sorted(name for name, count in Counter(figure.name for figure in figures).items() if count > 1)
    if twice:
        raise ValueError(f"{where}: figures given twice: {', '.join(twice)}")
    return json.dumps([asdict(figure) for figure in figures], indent=1, allow_nan=False) + "\n"


def write_numbers(path: Path | str, figures: Sequence[Figure]) -> None:
    """Write the list atomically; a name given twice raises ValueError."""
    write_atomically(path, numbers_json(figures, path))


def read_numbers(path: Path | str) -> list[Figure]:
    """Read and check a `numbers.json`; a ValueError names the file and the entry."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of figures, got {type(rows).__name__}")
    figures = []
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: entry {position} is not an object")
        figures.append(parse_record(Figure, row, f"{path}: entry {position}"))
    return figures
