"""Goodput: the share of a run's time that ends up in the model, when devices fail and checkpoints cost time.

Failures come at random with mean time `mtbf` between them. Work is done in pieces of `interval` seconds, each followed
by a checkpoint that stops training for `save` seconds; a failure loses what came after the last checkpoint and costs
`restart` seconds, in which there may be another failure. All in seconds.
"""

from __future__ import annotations

import math

import numpy as np


def young_interval(save: float, mtbf: float) -> float:
    """Seconds of work between checkpoints that lose least, to first order (Young 1974)."""
    return math.sqrt(2 * save * mtbf)


def daly_interval(save: float, mtbf: float) -> float:
    """The same to higher order (Daly 2006); valid also where a checkpoint costs a good part of `mtbf`."""
    if save >= 2 * mtbf:
        return mtbf
    ratio = save / (2 * mtbf)
    return math.sqrt(2 * save * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save


def young_goodput(interval: float, save: float, restart: float, mtbf: float) -> float:
    """Goodput to first order: half a piece is lost at each failure, and failures are rare."""
    return 1 / (1 + save / interval) * (1 - (restart + (interval + save) / 2) / mtbf)


def daly_goodput(interval: float, save: float, restart: float, mtbf: float) -> float:
    """Goodput by Daly's complete model: exponential failures, also within pieces, checkpoints and restarts."""
    return interval / (mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf))


def simulated_goodput(
    interval: float, save: float, restart: float, mtbf: float, failures: int = 100_000, seed: int = 0
) -> float:
    """Goodput of a simulated run that ends with its `failures`-th failure after a successful restart."""
    rng = np.random.default_rng(seed)
    until_failure = rng.exponential(mtbf, failures)
    pieces = np.floor(until_failure / (interval + save))
    return float(pieces.sum() * interval / (until_failure.sum() + _restarts(rng, failures, restart, mtbf)))


def _restarts(rng: np.random.Generator, count: int, restart: float, mtbf: float) -> float:
    """Seconds of `count` restarts; one that is broken off by a failure begins again."""
    total, waiting = 0.0, count
    while waiting:
        until_failure = rng.exponential(mtbf, waiting)
        total += float(np.minimum(until_failure, restart).sum())
        waiting = int((until_failure < restart).sum())
    return total
