"""Peak signal-to-noise ratio of a clip (torchmetrics)."""

from __future__ import annotations

import numpy as np
from moviegen_eval.metrics.base import as_frames, in_batches
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio


class Psnr:
    """PSNR in dB: one squared error over all frames, pixels and RGB channels of a clip, data range 255.

    Figures are means of this over clips (not the PSNR of the mean error, and not means over frames, which
    weigh easy frames more). A perfect copy has no finite PSNR; scores are capped at 100 dB.
    """

    name = "psnr"
    unit = "dB"
    higher_is_better = True
    cap = 100.0

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """PSNR of one clip: uint8 [T, H, W, 3] both."""
        value = peak_signal_noise_ratio(as_frames(reconstruction), as_frames(source), data_range=255.0)
        return min(float(value), self.cap)

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """PSNR of each frame, float64 [T]: uint8 [T, H, W, 3] both."""

        def score(given: Tensor, wanted: Tensor) -> Tensor:
            return peak_signal_noise_ratio(given, wanted, data_range=255.0, reduction="none", dim=(1, 2, 3))

        return np.minimum(in_batches(score, source, reconstruction), self.cap)
