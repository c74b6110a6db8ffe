"""Figures that a paper printed without its counts: a column of its own, marked "published, n unknown"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen_eval.files import read_json
from moviegen_eval.records import parse_record

COLUMN = "published, n unknown"


@dataclass(frozen=True)
class Published:
    """Net win rates of a paper's first system against others."""

    source: str
    first: str  # the system whose side the nets are on
    nets: dict[str, dict[str, float]]  # axis -> arm -> net win rate
    unconfirmed: list[str]  # axes of which a figure was not checked against the source
    notes: list[str]

    def net(self, axis: str, second: str) -> float | None:
        """The published net win rate against an arm."""
        return self.nets.get(axis, {}).get(second)


def read_published(path: Path | str) -> Published:
    """Read the json file; a ValueError names the key at fault."""
    values: Any = read_json(path)
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected an object")
    published = parse_record(Published, values, str(path))
    for axis, row in published.nets.items():
        for arm, net in row.items():
            if isinstance(net, bool) or not isinstance(net, int | float) or not -100 <= net <= 100:
                raise ValueError(f"{path}: nets.{axis}.{arm} is {net!r}; expected -100 to 100")
    return published
