"""VMAF of a clip through libvmaf."""

from __future__ import annotations

import numpy as np

from moviegen.media import vmaf_frames


class Vmaf:
    """Mean over frames of VMAF (model vmaf_v0.6.1), 0 to 100. Made for 1080p: on small frames it only ranks."""

    name = "vmaf"
    unit = "vmaf"
    higher_is_better = True

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """VMAF of one clip: uint8 [T, H, W, 3] both, height and width even."""
        return float(self.frames(source, reconstruction).mean())

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """VMAF of each frame, float64 [T]: uint8 [T, H, W, 3] both."""
        return vmaf_frames(source, reconstruction)
