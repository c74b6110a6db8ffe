"""ST-LPIPS of a clip: a perceptual distance that small shifts do not upset (weights from the wheel stlpips-pytorch)."""

from __future__ import annotations

import numpy as np
import torch
from moviegen_eval.metrics.base import as_frames

from moviegen.perceptual import SMALLEST_SIDE, STLPIPS


class StLpips:
    """Mean over frames of ST-LPIPS with the AlexNet; not LPIPS, and not to be compared with its figures.

    Args:
        batch: frames that are scored at a time.
    """

    name = "st_lpips"
    unit = "distance"
    higher_is_better = False
    smallest_side = SMALLEST_SIDE

    def __init__(self, batch: int = 16):
        self.batch = batch
        self.net = STLPIPS("alex")

    @torch.no_grad()
    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """ST-LPIPS of one clip: uint8 [T, H, W, 3] both, height and width at least 32 pixels."""
        given, wanted = (as_frames(clip) / 127.5 - 1 for clip in (reconstruction, source))
        pairs = zip(given.split(self.batch), wanted.split(self.batch), strict=True)
        return float(torch.cat([self.net(a, b) for a, b in pairs]).mean())
