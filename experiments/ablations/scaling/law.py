"""Compute-optimal sizes from runs of several sizes at several budgets, and a power law through them.

As in IsoFLOP studies (Hoffmann et al., arXiv 2203.15556, approach 2; Llama 3, whose law the paper draws over its four
sizes): at each budget a parabola of the loss over log N has its lowest point at the best size; log N* and log L* are
then straight lines over log C. Intervals are Student's, of a line through so few points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Run:
    """One training: parameters N, compute C in FLOPs, held-out loss."""

    num_parameters: float
    flops: float
    loss: float


@dataclass(frozen=True)
class Optimum:
    """The best size at a budget. `inside`: it lies between the sizes that were tried, and is a lowest point."""

    flops: float
    num_parameters: float
    loss: float
    inside: bool


@dataclass(frozen=True)
class Slope:
    """An exponent with its 95 % interval (None with fewer than three points), and the factor before the power."""

    exponent: float
    low: float | None
    high: float | None
    factor: float
    num_points: int


def optima(runs: Sequence[Run]) -> list[Optimum]:
    """The best size at each budget, by budget; runs of one size at one budget (seeds) are averaged.

    Raises ValueError for a budget with fewer than three sizes.
    """
    found = []
    for flops in sorted({run.flops for run in runs}):
        here = [run for run in runs if run.flops == flops]
        sizes = sorted({run.num_parameters for run in here})
        if len(sizes) < 3:
            raise ValueError(f"a parabola at {flops:g} FLOPs needs three sizes, got {len(sizes)}")
        losses = [float(np.mean([run.loss for run in here if run.num_parameters == size])) for size in sizes]
        found.append(_optimum(flops, np.log(sizes), np.array(losses)))
    return found


def _optimum(flops: float, log_sizes: np.ndarray, losses: np.ndarray) -> Optimum:
    center = log_sizes.mean()
    curve, slope, level = np.polyfit(log_sizes - center, losses, 2)
    if curve > 0:
        lowest = -slope / (2 * curve)
        if log_sizes[0] <= lowest + center <= log_sizes[-1]:
            return Optimum(flops, float(np.exp(lowest + center)), float(level - slope**2 / (4 * curve)), True)
    best = int(losses.argmin())
    return Optimum(flops, float(np.exp(log_sizes[best])), float(losses[best]), False)


def power_law(x: Sequence[float], y: Sequence[float]) -> Slope:
    """y = factor x^exponent by least squares of the logarithms; raises ValueError below two different x."""
    log_x, log_y = np.log(np.asarray(x, dtype=np.float64)), np.log(np.asarray(y, dtype=np.float64))
    if len(set(log_x)) < 2:
        raise ValueError(f"a power law needs two different points, got {len(set(log_x))}")
    center = log_x.mean()
    exponent, level = np.polyfit(log_x - center, log_y, 1)
    factor, free = float(np.exp(level - exponent * center)), len(log_x) - 2
    if free < 1:
        return Slope(float(exponent), None, None, factor, len(log_x))
    rest = log_y - level - exponent * (log_x - center)
    error = np.sqrt((rest**2).sum() / free / ((log_x - center) ** 2).sum())
    half = float(stdtrit(free, 0.975) * error)
    return Slope(float(exponent), float(exponent) - half, float(exponent) + half, factor, len(log_x))
