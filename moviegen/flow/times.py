"""Times on the path: how training draws them and which ones sampling visits (paper 3.1.2, 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogitNormal:
    """Training times [B] in (0, 1) from standard normal draws [B]; mean 0 and std 1 in the paper.

    A mean above 0 trains more on nearly clean latents. At toy size 1.2 lowered the loss there and changed no judged
    figure (experiments/toy/README.md).
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise ValueError(f"std of the logits must be positive, got {self.std}")

    def __call__(self, normal: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * normal)


def linear_times(num_steps: int) -> Tensor:
    """Evenly spaced times [num_steps + 1] from 0 to 1."""
    return torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)


def linear_quadratic_times(num_steps: int, emulated_steps: int = 250) -> Tensor:
    """The paper's schedule: the first half of the steps are those of `emulated_steps` linear ones, the rest
    grow quadratically to t = 1 (paper 3.4: 25 + 25 steps for N = 250). [num_steps + 1] times.

    The paper prints no closed form; this one keeps the first derivative continuous where the halves meet.
    """
    if num_steps < 2 or emulated_steps < num_steps:
        raise ValueError(f"need 2 <= num_steps <= emulated_steps, got {num_steps} and {emulated_steps}")
    num_linear = num_steps // 2
    num_quadratic = num_steps - num_linear
    linear = torch.arange(num_linear + 1, dtype=torch.float64) / emulated_steps
    tau = num_linear / emulated_steps
    q = torch.arange(1, num_quadratic + 1, dtype=torch.float64)
    slope = 1 / emulated_steps
    curve = 1 - tau - slope * num_quadratic
    return torch.cat([linear, tau + slope * q + curve * (q / num_quadratic) ** 2])
