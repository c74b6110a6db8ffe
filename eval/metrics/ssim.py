"""Structural similarity of a clip (torchmetrics)."""

from __future__ import annotations

import numpy as np
from moviegen_eval.metrics.base import as_frames
from torchmetrics.functional.image import structural_similarity_index_measure


class Ssim:
    """Mean over frames of SSIM on RGB: Gaussian window of 11 pixels and sigma 1.5, data range 255."""

    name = "ssim"
    unit = "ssim"
    higher_is_better = True
    smallest_side = 11  # pixels: the window

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """SSIM of one clip: uint8 [T, H, W, 3] both, height and width at least 11 pixels."""
        height, width = source.shape[1:3]
        if min(height, width) < self.smallest_side:
            raise ValueError(
                f"SSIM needs frames of at least {self.smallest_side} pixels, got {width}x{height}"
            )
        value = structural_similarity_index_measure(
            as_frames(reconstruction), as_frames(source), data_range=255.0
        )
        assert not isinstance(value, tuple)
        return float(value)
