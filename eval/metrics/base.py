"""The protocol that every metric follows: clips in, one float out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Metric(Protocol):
    """A full-reference metric: a pure function of a clip and its reconstruction."""

    name: str
    unit: str
    higher_is_better: bool

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """Score one clip: uint8 [T, H, W, 3] both, equal shapes."""
        ...


def as_frames(clip: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] -> float32 [T, 3, H, W] in 0..255, the layout of torchmetrics' image metrics."""
    return torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
