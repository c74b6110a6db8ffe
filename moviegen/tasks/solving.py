"""How a trained network is integrated from noise to data: solver, schedule and guidance (paper 3.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from moviegen.backbone.transformer import Conditions
from moviegen.flow.guidance import (
    Interval,
    Velocity,
    check_interval,
    guided,
    guided_together,
    nested_guidance,
)
from moviegen.flow.path import DiffusionPath, Path
from moviegen.flow.sampler import ddim, dopri5, euler, heun, midpoint, torchdiffeq_odeint
from moviegen.flow.times import (
    check_shift,
    linear_quadratic_mindone_times,
    linear_quadratic_times,
    linear_times,
    shifted_times,
)
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Grid

FIXED_STEPS = {"euler": euler, "midpoint": midpoint, "heun": heun}
SOLVERS = (*FIXED_STEPS, "dopri5", "ddim")
SCHEDULES = ("linear", "linear_quadratic", "linear_quadratic_mindone", "shifted")


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How to integrate. Paper 3.4: Euler, 50 linear-quadratic steps, guidance 7.5.

    Args:
        num_steps, schedule: which times are visited; `dopri5` chooses its own.
        emulated_steps: of the linear-quadratic schedules.
        shift: of the shifted schedule; above 1 there are more steps near the noise.
        solver: `ddim` is for models of a diffusion path.
        tolerance: of `dopri5`.
        guidance: scale of classifier-free guidance on the text; 1 is none.
        condition_guidance: scales of other conditions by name, which come before the text; one not named has scale 1.
        guidance_from, guidance_until: times between which guidance is on (arXiv 2404.07724).
        batched_guidance: evaluate both terms of guidance in one batch of twice the size.

    Raises:
        ValueError: a name that is none, a number outside of its range, or steps that the schedule cannot make.
    """

    num_steps: int = 50
    schedule: str = "linear_quadratic"
    emulated_steps: int = 250
    shift: float = 3.0
    solver: str = "euler"
    tolerance: float = 1e-4
    guidance: float = 7.5
    condition_guidance: Mapping[str, float] = field(default_factory=dict)
    guidance_from: float = 0.0
    guidance_until: float = 1.0
    batched_guidance: bool = False

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {self.solver!r}")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        numbers = {name: getattr(self, name) for name in ("tolerance", "shift", "guidance")}
        numbers |= {f"condition_guidance.{name}": scale for name, scale in self.condition_guidance.items()}
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise ValueError(f"{name} must be a finite number, got {number}")
        if self.tolerance <= 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        check_shift(self.shift)
        check_interval(self.interval)
        if self.solver != "dopri5":
            self.times()
        if "text" in self.condition_guidance:
            raise ValueError("condition_guidance.text: the scale of the text is guidance, which comes last")

    @property
    def interval(self) -> Interval:
        """The times between which guidance is on."""
        return self.guidance_from, self.guidance_until

    def times(self) -> Tensor:
        """The times that are visited: [num_steps + 1] from 0 to 1, float64."""
        if self.schedule == "linear":
            return linear_times(self.num_steps)
        if self.schedule == "shifted":
            return shifted_times(self.num_steps, self.shift)
        form = (
            linear_quadratic_times if self.schedule == "linear_quadratic" else linear_quadratic_mindone_times
        )
        return form(self.num_steps, self.emulated_steps)


def check_solver(path: Path, config: SolverConfig) -> None:
    """Raise ValueError for a solver that a model's path does not go with, or that is not installed."""
    if config.solver == "dopri5":
        torchdiffeq_odeint()
    if config.solver == "ddim" and not isinstance(path, DiffusionPath):
        raise ValueError(
            f"solver ddim is for diffusion models, this one is trained on {type(path).__name__}; use euler"
        )


def solve(velocity: Velocity, x_0: Tensor, path: Path, config: SolverConfig) -> Tensor:
    """Integrate noise x_0 [B, ..., C] to data; raises ValueError as `check_solver`."""
    check_solver(path, config)
    if config.solver == "dopri5":
        return dopri5(velocity, x_0, linear_times(1), config.tolerance)
    if config.solver == "ddim" and isinstance(path, DiffusionPath):
        return ddim(velocity, x_0, config.times(), path)
    return FIXED_STEPS[config.solver](velocity, x_0, config.times())


def guided_velocity(
    task: FlowTask,
    inputs: Mapping[str, Any],
    grid: Grid,
    config: SolverConfig,
    unguided: frozenset[str] = frozenset({"text"}),
    absent: frozenset[str] = frozenset(),
) -> Velocity:
    """The velocity of a task's network under `inputs` (condition name -> collated field), guided as configured.

    Conditions are encoded once for each term of guidance, not in every step. `unguided` names those that
    `config.guidance` is for, `absent` those that both are.
    """
    encoded: dict[tuple[frozenset[str], ...], Conditions] = {}

    def conditions(drops: tuple[frozenset[str], ...], count: int, device: torch.device) -> Conditions:
        if drops not in encoded:
            everyone = torch.ones(count, dtype=torch.bool, device=device)
            each = [task.conditions(inputs, grid, dict.fromkeys(drop | absent, everyone)) for drop in drops]
            encoded[drops] = joined(each)
        return encoded[drops]

    def together(x: Tensor, t: Tensor, drops: tuple[frozenset[str], ...]) -> Tensor:
        answer = task.backbone(x, t, conditions(drops, len(x) // len(drops), x.device))
        return task.path.velocity(answer.float(), t)

    def one(x: Tensor, t: Tensor, drop: frozenset[str]) -> Tensor:
        return together(x, t, (drop,))

    terms = nested_guidance({**config.condition_guidance, "text": config.guidance}, beside=unguided)
    if config.batched_guidance:
        return guided_together(together, terms, config.interval)
    return guided(one, terms, config.interval)


def joined(parts: list[Conditions]) -> Conditions:
    """Conditions of several batches on one grid as those of one batch."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values = {field.name: [getattr(part, field.name) for part in parts] for field in fields(first)}
    whole: dict[str, Any] = {
        name: torch.cat(each) if isinstance(each[0], Tensor) else each[0] for name, each in values.items()
    }
    return Conditions(**whole)
