"""ODE solvers from noise (t = 0) to data (t = 1): Euler for video (paper 3.4), midpoint for audio (paper 6)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from moviegen.flow.guidance import Velocity


def euler(velocity: Velocity, x_0: Tensor, times: Tensor) -> Tensor:
    """Integrate dx/dt from noise x_0 [B, ..., C] along increasing times [N + 1] from 0 to 1."""
    x = x_0
    for t, t_next in pairwise(times):
        x = x + (t_next - t).to(x) * velocity(x, t.to(x).expand(len(x)))
    return x


def midpoint(velocity: Velocity, x_0: Tensor, times: Tensor) -> Tensor:
    """As `euler`, with the velocity taken in the middle of each step: two evaluations a step."""
    x = x_0
    for t, t_next in pairwise(times):
        step = (t_next - t).to(x)
        middle = x + 0.5 * step * velocity(x, t.to(x).expand(len(x)))
        x = x + step * velocity(middle, ((t + t_next) / 2).to(x).expand(len(x)))
    return x
