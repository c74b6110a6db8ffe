"""Pixels between files and models: uint8 frames and floats in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_uint8(frames: Tensor) -> np.ndarray:
    """Frames [3, T, H, W] in [-1, 1] -> uint8 [T, H, W, 3]."""
    scaled = frames.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


def from_uint8(frames: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] -> float frames [3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2))).float().div(127.5).sub(1)
