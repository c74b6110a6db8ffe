"""ST-LPIPS of a clip: a perceptual distance that small shifts do not upset (weights from the wheel stlpips-pytorch)."""

from __future__ import annotations

import numpy as np
from moviegen_eval.metrics.base import in_batches
from torch import Tensor

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

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """ST-LPIPS of one clip: uint8 [T, H, W, 3] both, height and width at least 32 pixels."""
        return float(self.frames(source, reconstruction).mean())

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """ST-LPIPS of each frame, float64 [T]: uint8 [T, H, W, 3] both."""

        def score(given: Tensor, wanted: Tensor) -> Tensor:
            return self.net(given / 127.5 - 1, wanted / 127.5 - 1)

        return in_batches(score, source, reconstruction, self.batch)
