"""Samples larger than what a network was trained on: overlapping windows whose velocities are averaged in every step.

Multi-diffusion (Bar-Tal et al. 2023). Movie Gen extends sound so (6: triangular weights do better than equal ones), and
other generators tile space and time by the same function: windows may run along any axes of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from moviegen.flow.guidance import Velocity

Shape = Literal["triangular", "uniform"]
Part = tuple[slice, ...]  # one slice for each windowed axis
PartVelocity = Callable[
    [Tensor, Tensor, Part], Tensor
]  # (x_t of a window, t [B], where it lies) -> dx/dt there


@dataclass(frozen=True)
class Axis:
    """How one axis of x is cut: windows of `size`, a new one every `hop` places.

    Raises:
        ValueError: a hop that is not within 1 and the size.
    """

    dim: int
    size: int
    hop: int

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= self.size:
            raise ValueError(f"windows of {self.size} need a hop from 1 to {self.size}, got {self.hop}")

    def spans(self, length: int) -> list[slice]:
        """Windows of one size that cover `length` places; the last ends with them. One, shorter, where all fits in."""
        if length <= self.size:
            return [slice(0, length)]
        starts = [*range(0, length - self.size, self.hop), length - self.size]
        return [slice(start, start + self.size) for start in starts]


def weights(size: int, shape: Shape = "triangular") -> Tensor:
    """What each place of a window counts, [size], all above 0: most in the middle, or alike.

    Raises ValueError for another shape.
    """
    if shape == "uniform":
        return torch.ones(size)
    if shape != "triangular":
        raise ValueError(f"weights of windows are triangular or uniform, got {shape!r}")
    place = torch.arange(size) + 0.5
    return torch.minimum(place, size - place) / (size / 2)


def averaged(velocity: PartVelocity, axes: Sequence[Axis], shape: Shape = "triangular") -> Velocity:
    """A velocity of all of x from one that knows windows: their weighted mean at each place.

    Windows are evaluated one after another, so that memory for activations is that of one.
    """

    def everywhere(x: Tensor, t: Tensor) -> Tensor:
        total, count = torch.zeros_like(x), torch.zeros_like(x[:1])
        for part in product(*(axis.spans(x.shape[axis.dim]) for axis in axes)):
            place = [slice(None)] * x.ndim
            weight = torch.ones([1] * x.ndim, device=x.device, dtype=x.dtype)
            for axis, span in zip(axes, part, strict=True):
                place[axis.dim] = span
                along = [1] * x.ndim
                along[axis.dim] = -1
                weight = weight * weights(span.stop - span.start, shape).to(x).view(along)
            index = tuple(place)
            total[index] += weight * velocity(x[index], t, part).to(x.dtype)
            count[(slice(0, 1), *index[1:])] += weight
        return total / count

    return everywhere
