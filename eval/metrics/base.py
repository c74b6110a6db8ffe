"""The protocol that every metric follows: clips in, one float out."""

from __future__ import annotations

from collections.abc import Callable
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


class FrameMetric(Metric, Protocol):
    """A metric that also scores the frames of a clip one by one."""

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """Score every frame: uint8 [T, H, W, 3] both -> float64 [T]."""
        ...


def as_frames(clip: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] -> float32 [T, 3, H, W] in 0..255, the layout of torchmetrics' image metrics."""
    return torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()


def in_batches(
    score: Callable[[Tensor, Tensor], Tensor], source: np.ndarray, reconstruction: np.ndarray, batch: int = 16
) -> np.ndarray:
    """Scores [T] of frames uint8 [T, H, W, 3], some at a time; `score` takes two [N, 3, H, W] in 0..255 -> [N]."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(source), batch):
            given, wanted = (as_frames(clip[start : start + batch]) for clip in (reconstruction, source))
            parts.append(score(given, wanted).reshape(-1))
    return torch.cat(parts).double().numpy()
