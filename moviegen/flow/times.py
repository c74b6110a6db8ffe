"""Times on the path: how training draws them and which ones sampling visits (paper 3.1.2, 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Times:
    """Base class: a distribution of training times, as a function of standard normal draws.

    One draw a sample, whatever the distribution: with another one a run still sees the same noise.
    """

    def __call__(self, normal: Tensor) -> Tensor:
        """Times [B] in [0, 1] from standard normal draws [B]."""
        raise NotImplementedError


@dataclass(frozen=True)
class LogitNormal(Times):
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


@dataclass(frozen=True)
class Uniform(Times):
    """All times alike, as diffusion trains."""

    def __call__(self, normal: Tensor) -> Tensor:
        return torch.special.ndtr(normal)


@dataclass(frozen=True)
class Shifted(Times):
    """Another distribution moved towards the noise by `shift_towards_noise`."""

    shift: float
    base: Times = Uniform()

    def __post_init__(self) -> None:
        check_shift(self.shift)

    def __call__(self, normal: Tensor) -> Tensor:
        return shift_towards_noise(self.base(normal), self.shift)


def check_shift(shift: float) -> None:
    """Raise ValueError for a shift that is not positive."""
    if shift <= 0:
        raise ValueError(f"shift must be positive (1 changes nothing), got {shift}")


def shift_towards_noise(t: Tensor, shift: float) -> Tensor:
    """Times of a path on which the noise-to-data ratio (1 - t) / t is `shift` times as large (SD3, arXiv 2403.03206).

    SD3 takes the square root of the ratio of two resolutions' pixels; above 1 more time is spent near the noise.
    """
    return t / (shift - (shift - 1) * t)


def linear_times(num_steps: int) -> Tensor:
    """Evenly spaced times [num_steps + 1] from 0 to 1."""
    return torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)


def shifted_times(num_steps: int, shift: float) -> Tensor:
    """Evenly spaced times moved towards the noise: [num_steps + 1] from 0 to 1."""
    check_shift(shift)
    return shift_towards_noise(linear_times(num_steps), shift)


def linear_quadratic_times(num_steps: int, emulated_steps: int = 250) -> Tensor:
    """The paper's schedule: the first half of the steps are those of `emulated_steps` linear ones, the rest
    grow quadratically to t = 1 (paper 3.4: 25 + 25 steps for N = 250). [num_steps + 1] times.

    The paper prints no closed form; this one keeps the first derivative continuous where the halves meet, as the
    public schedule of Mochi 1 (genmoai/mochi), LTX-Video, diffusers and ComfyUI does.
    """
    _check_halves(num_steps, emulated_steps)
    num_linear = num_steps // 2
    num_quadratic = num_steps - num_linear
    linear = torch.arange(num_linear + 1, dtype=torch.float64) / emulated_steps
    tau = num_linear / emulated_steps
    q = torch.arange(1, num_quadratic + 1, dtype=torch.float64)
    slope = 1 / emulated_steps
    curve = 1 - tau - slope * num_quadratic
    return torch.cat([linear, tau + slope * q + curve * (q / num_quadratic) ** 2])


def linear_quadratic_mindone_times(num_steps: int, emulated_steps: int = 250) -> Tensor:
    """The other public closed form of the paper's schedule, of the MindSpore re-implementation (mindone, moviegen).

    Squares of evenly spaced numbers from the last linear time on: the first quadratic steps are shorter than the linear
    ones, and the last of all reaches t = 1. An odd step falls to the linear half. [num_steps + 1] times.
    """
    _check_halves(num_steps, emulated_steps)
    num_linear = (num_steps + 1) // 2
    num_quadratic = num_steps - num_linear
    linear = torch.arange(num_linear, dtype=torch.float64) / emulated_steps
    share = torch.arange(1, num_quadratic + 2, dtype=torch.float64) / (num_quadratic + 1)
    return torch.cat([linear, linear[-1] + (1 - linear[-1]) * share**2])


def _check_halves(num_steps: int, emulated_steps: int) -> None:
    if num_steps < 2 or emulated_steps < num_steps:
        raise ValueError(
            f"num_steps={num_steps}: a linear-quadratic schedule has 2 to emulated_steps={emulated_steps} steps"
        )
