"""Structural similarity of a clip (torchmetrics)."""

from __future__ import annotations

import numpy as np
from moviegen_eval.metrics.base import in_batches
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure


class Ssim:
    """Mean over frames of SSIM on RGB: Gaussian window of 11 pixels and sigma 1.5, data range 255."""

    name = "ssim"
    unit = "ssim"
    higher_is_better = True
    smallest_side = 11  # pixels: the window

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """SSIM of one clip: uint8 [T, H, W, 3] both, height and width at least 11 pixels."""
        return float(self.frames(source, reconstruction).mean())

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """SSIM of each frame, float64 [T]: uint8 [T, H, W, 3] both."""
        height, width = source.shape[1:3]
        if min(height, width) < self.smallest_side:
            raise ValueError(
                f"SSIM needs frames of at least {self.smallest_side} pixels, got {width}x{height}"
            )
        return in_batches(_ssim, source, reconstruction)


def _ssim(given: Tensor, wanted: Tensor) -> Tensor:
    value = structural_similarity_index_measure(given, wanted, data_range=255.0, reduction="none")
    assert not isinstance(value, tuple)
    return value
