"""Fit the planner's three shares per hardware to published step times, and leave each source out in turn.

python experiments/plan/fit.py      prints every row and the fitted shares for conf/hardware/*.yaml
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from published import Row, of, rows
from scipy.optimize import least_squares

SHARES = ("products_share", "attention_share", "links_share")
LOWEST, HIGHEST = (0.2, 0.2, 0.2), (1.0, 1.0, 0.9)  # nccl-tests reach at most about nine tenths of a link
WITHIN = 0.25


def fitted(table: Sequence[Row]) -> dict[str, float]:
    """Shares that bring predicted step times closest to published ones, as ratios; every source weighs alike."""
    used = [row for row in table if row.fit]
    count = {source: sum(row.source == source for row in used) for source in {row.source for row in used}}

    def residuals(values: np.ndarray) -> list[float]:
        shares = dict(zip(SHARES, values.tolist(), strict=True))
        return [math.log(1 + row.error(shares)) / math.sqrt(count[row.source]) for row in used]

    found = least_squares(residuals, [0.7, 0.7, 0.7], bounds=(LOWEST, HIGHEST), loss="soft_l1", f_scale=0.1)
    return {name: round(float(value), 3) for name, value in zip(SHARES, found.x, strict=True)}


def left_out(table: Sequence[Row]) -> dict[str, float]:
    """Error of each row by shares that were fitted without any row of its source."""
    errors = {}
    for source in dict.fromkeys(row.source for row in table):
        shares = fitted([row for row in table if row.source != source])
        errors |= {row.name: row.error(shares) for row in table if row.source == source}
    return errors


def report(device: str, table: Sequence[Row]) -> str:
    """All rows of one hardware as text."""
    shares, without = fitted(table), left_out(table)
    lines = [f"{device}: " + ", ".join(f"{name}={value}" for name, value in shares.items())]
    for row in table:
        error, blind = row.error(shares), without[row.name]
        mark = "" if abs(error) <= WITHIN else "  MISS"
        times = f"{row.seconds:9.3f} s {row.predicted(shares):9.3f} s"
        lines.append(f"  {row.name:24}{times} {error:+7.1%}  source left out {blind:+7.1%}{mark}")
    return "\n".join(lines)


def main() -> None:
    table = rows()
    for device in dict.fromkeys(row.device for row in table):
        print(report(device, of(device, table)))


if __name__ == "__main__":
    main()
