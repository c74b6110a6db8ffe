"""Flow matching on the straight (optimal-transport) path: one objective for every modality (paper 3.1.2).

Convention: t = 0 is noise, t = 1 is data, and the network predicts the velocity dx/dt.
Nothing here knows whether x holds video or audio; any [B, ..., C] tensor will do.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PathSample:
    """A point on the path and what the network should answer there."""

    x_t: Tensor  # [B, ..., C] point on the path
    target: Tensor  # [B, ..., C] velocity of the path at x_t
    t: Tensor  # [B] times in [0, 1]


@dataclass(frozen=True)
class OTPath:
    """x_t = t x_1 + (1 - (1 - sigma_min) t) x_0, from noise x_0 to data x_1."""

    sigma_min: float = 1e-5  # paper 3.1.2

    def sample(self, x_1: Tensor, x_0: Tensor, t: Tensor) -> PathSample:
        """Interpolate data x_1 and noise x_0, both [B, ..., C], at times t [B]."""
        s = t.view(-1, *[1] * (x_1.ndim - 1))
        decay = 1 - self.sigma_min
        return PathSample(x_t=s * x_1 + (1 - decay * s) * x_0, target=x_1 - decay * x_0, t=t)
