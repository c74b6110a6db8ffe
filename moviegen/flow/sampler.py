"""ODE solvers from noise (t = 0) to data (t = 1): Euler for video (paper 3.4), midpoint for audio (paper 6).

All take a velocity, noise x_0 [B, ..., C] and increasing times [N + 1] from 0 to 1, and return x_1 [B, ..., C].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from moviegen.flow.guidance import Velocity
from moviegen.flow.path import DiffusionPath

EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "ddim": 1}  # of the velocity, a step


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


def heun(velocity: Velocity, x_0: Tensor, times: Tensor) -> Tensor:
    """As `euler`, with the mean of the velocities at both ends of each step: two evaluations a step."""
    x = x_0
    for t, t_next in pairwise(times):
        step = (t_next - t).to(x)
        first = velocity(x, t.to(x).expand(len(x)))
        second = velocity(x + step * first, t_next.to(x).expand(len(x)))
        x = x + 0.5 * step * (first + second)
    return x


def dopri5(velocity: Velocity, x_0: Tensor, times: Tensor, tolerance: float = 1e-4) -> Tensor:
    """Dormand-Prince of order 5 with steps of its own, from times[0] to times[-1], through torchdiffeq.

    `tolerance` bounds the relative and the absolute error of a step. Steps are chosen for the batch as a whole: within
    the tolerance a sample depends on its neighbours. Raises ValueError where torchdiffeq is not installed.
    """
    odeint = torchdiffeq_odeint()

    def slope(t: Tensor, x: Tensor) -> Tensor:
        return velocity(x, t.to(x).expand(len(x)))

    ends = torch.stack([times[0], times[-1]]).to(x_0.device)  # float64, also for float32 latents
    # a step must end at t = 1: past it, where torchdiffeq would look, no network was trained
    at_the_end = {"step_t": ends[1:]}
    path = odeint(slope, x_0, ends, rtol=tolerance, atol=tolerance, method="dopri5", options=at_the_end)
    assert isinstance(path, Tensor)
    return path[-1]


def torchdiffeq_odeint() -> Callable[..., Any]:
    """What `dopri5` integrates with; raises ValueError where torchdiffeq is not installed."""
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ValueError(
            "solver dopri5 needs torchdiffeq, which is not installed (pip install moviegen[solvers])"
        ) from error
    return odeint


def ddim(velocity: Velocity, x_0: Tensor, times: Tensor, path: DiffusionPath) -> Tensor:
    """Deterministic DDIM: each step turns x by the angle between two times, exact where x_0 and x_1 stay as predicted.

    Takes the velocity of a diffusion path, like all solvers, and undoes the path's own speed.
    """
    x = x_0
    for t, t_next in pairwise(times.to(x_0)):
        by_angle = velocity(x, t.expand(len(x))) / path.speed(t).to(x)  # dx/dphi
        turn = (path.angle(t_next) - path.angle(t)).to(x)
        x = turn.cos() * x + turn.sin() * by_angle
    return x
