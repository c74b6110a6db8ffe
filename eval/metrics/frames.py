"""Feature extractors of frames behind the registry's interface."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from moviegen_eval.metrics.sample import Clip


class OfFrames(Protocol):
    """An extractor that takes frames uint8 [T, H, W, 3]."""

    def features(self, clip: np.ndarray) -> np.ndarray: ...


class FrameFeatures:
    """Features of a clip's frames.

    Args:
        num_frames: take so many at even times; None takes all.
    """

    def __init__(self, extractor: OfFrames, num_frames: int | None = None):
        self.extractor, self.num_frames = extractor, num_frames

    def features(self, clip: Clip) -> np.ndarray:
        frames = clip.frames
        if self.num_frames is not None and len(frames) > self.num_frames:
            frames = frames[np.linspace(0, len(frames) - 1, self.num_frames).round().astype(int)]
        return self.extractor.features(frames)
