"""Paths from noise to data and what the network predicts on them: one objective for every modality (paper 3.1.2).

Convention: t = 0 is noise, t = 1 is data, and x_t = alpha(t) x_1 + sigma(t) x_0. Flow matching on the straight path
is the default; variance-preserving diffusion with v-prediction is the paper's ablation (Table 8a).
Nothing here knows whether x holds video or audio; any [B, ..., C] tensor will do.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PathSample:
    """A point on the path and what the network should answer there."""

    x_t: Tensor  # [B, ..., C] point on the path
    target: Tensor  # [B, ..., C] what the network should answer at x_t: the velocity on the straight path
    t: Tensor  # [B] times in [0, 1]
    weights: Tensor | None = None  # [B, S] of the tokens' training losses; None for all alike


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """[B] reshaped so that it multiplies x [B, ..., C]."""
    return values.view(-1, *[1] * (x.ndim - 1))


class Path:
    """Base class: how noise and data mix at time t, what the network predicts, and which velocity follows from it."""

    def alpha(self, t: Tensor) -> Tensor:
        """Share of the data at times t, of the shape of t."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """Share of the noise at times t, of the shape of t."""
        raise NotImplementedError

    def sample(self, x_1: Tensor, x_0: Tensor, t: Tensor) -> PathSample:
        """Mix data x_1 and noise x_0, both [B, ..., C], at times t [B]."""
        raise NotImplementedError

    def velocity(self, answer: Tensor, t: Tensor) -> Tensor:
        """dx/dt [B, ..., C] at times t [B], from what the network answered there."""
        raise NotImplementedError


@dataclass(frozen=True)
class OTPath(Path):
    """Flow matching: x_t = t x_1 + (1 - (1 - sigma_min) t) x_0, from noise x_0 to data x_1; the answer is dx/dt."""

    sigma_min: float = 1e-5  # paper 3.1.2

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - (1 - self.sigma_min) * t

    def sample(self, x_1: Tensor, x_0: Tensor, t: Tensor) -> PathSample:
        s = per_sample(t, x_1)
        decay = 1 - self.sigma_min
        return PathSample(x_t=s * x_1 + (1 - decay * s) * x_0, target=x_1 - decay * x_0, t=t)

    def velocity(self, answer: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002 (the answer is the velocity)
        return answer


@dataclass(frozen=True)
class DiffusionPath(Path):
    """Variance-preserving diffusion, v-prediction, zero terminal SNR: the other arm of the paper's Table 8a.

    x_t = sin(phi) x_1 + cos(phi) x_0 with an angle phi(t) that grows from exactly 0 (pure noise: zero SNR) to pi / 2;
    the network answers v = sin(phi) x_0 - cos(phi) x_1 = -dx/dphi (Salimans & Ho, arXiv 2202.00512).

    The angle follows the square-root-linear ("scaled linear") betas of latent diffusion over `num_levels` noise levels,
    rescaled so that the last one is pure noise (Lin et al., arXiv 2305.08891, whom Emu Video follows), and runs
    linearly between two levels. At t = 1 a level without noise is added, where sampling ends.

    Args:
        beta_first, beta_last: betas of the lowest and the highest noise level, before rescaling.
    """

    num_levels: int = 1000
    beta_first: float = 0.00085  # latent diffusion (Rombach et al. 2022)
    beta_last: float = 0.012

    def __post_init__(self) -> None:
        if self.num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {self.num_levels}")
        if not 0 < self.beta_first <= self.beta_last < 1:
            raise ValueError(
                f"need 0 < beta_first <= beta_last < 1, got {self.beta_first} and {self.beta_last}"
            )

    def angles(self) -> Tensor:
        """phi at t = 0, 1 / num_levels, ..., 1: [num_levels + 1] float64, from 0 to pi / 2."""
        return _angles(self.num_levels, self.beta_first, self.beta_last).clone()

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The angle and its slope at times t, in float64: on the right of a level, except at t = 1."""
        angles = _angles(self.num_levels, self.beta_first, self.beta_last).to(t.device)
        position = t.double() * self.num_levels
        left = position.floor().clamp(0, self.num_levels - 1).long()
        rise = angles[left + 1] - angles[left]
        return angles[left] + (position - left) * rise, rise * self.num_levels

    def angle(self, t: Tensor) -> Tensor:
        """phi at times t in [0, 1], float64, of the shape of t."""
        return self._place(t)[0]

    def speed(self, t: Tensor) -> Tensor:
        """dphi/dt at times t in [0, 1], float64, of the shape of t."""
        return self._place(t)[1]

    def alpha(self, t: Tensor) -> Tensor:
        return self.angle(t).sin().to(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.angle(t).cos().to(t)

    def sample(self, x_1: Tensor, x_0: Tensor, t: Tensor) -> PathSample:
        alpha, sigma = per_sample(self.alpha(t), x_1), per_sample(self.sigma(t), x_1)
        return PathSample(x_t=alpha * x_1 + sigma * x_0, target=alpha * x_0 - sigma * x_1, t=t)

    def velocity(self, answer: Tensor, t: Tensor) -> Tensor:
        return -per_sample(self.speed(t).to(answer), answer) * answer


@functools.cache
def _angles(num_levels: int, beta_first: float, beta_last: float) -> Tensor:
    roots = torch.linspace(beta_first**0.5, beta_last**0.5, num_levels, dtype=torch.float64)
    alphas = (1 - roots**2).cumprod(0).sqrt()  # of the lowest noise level first
    alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
    end = torch.tensor([math.pi / 2], dtype=torch.float64)
    return torch.cat([alphas.asin().flip(0), end])


@dataclass(frozen=True)
class MinSNR:
    """Loss weights min(SNR, gamma) of the error in x_1, said for what the network predicts (arXiv 2303.09556).

    On both paths an error e of the answer is an error sigma(t) e of the x_1 that follows from it, so the weight of e is
    min(SNR, gamma) sigma^2 = min(alpha^2, gamma sigma^2). For v-prediction that is min(SNR, gamma) / (SNR + 1).
    """

    gamma: float = 5.0  # arXiv 2303.09556

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def __call__(self, path: Path, t: Tensor) -> Tensor:
        """Weights [B] at times t [B] of a path."""
        return torch.minimum(path.alpha(t) ** 2, self.gamma * path.sigma(t) ** 2)
