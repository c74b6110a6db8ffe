"""How much changes from frame to frame: motion and flicker, without weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from moviegen_eval.metrics.sample import Sample

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601


def temporal_information(frames: np.ndarray) -> float:
    """Motion of frames [T, H, W, 3]: standard deviation over pixels of the luma difference to the frame before.

    This is ITU-T P.910's TI in levels of 255, averaged over time where P.910 takes the largest, so that one cut does
    not make a still clip fast. It depends on the frame rate, as coding does. 0 for an image.
    """
    values = [float(difference.std()) for difference in luma_differences(frames)]
    return float(np.mean(values)) if values else 0.0


def luma_differences(frames: np.ndarray) -> list[np.ndarray]:
    """Luma of each frame minus the frame before, float32 [H, W] in levels of 255, T - 1 of them."""
    luma = (frame.astype(np.float32) @ LUMA for frame in frames)
    before, found = next(luma), []
    for now in luma:
        found.append(now - before)
        before = now
    return found


class Motion:
    """`motion`: temporal information a second (levels of 255 times frames/s over 8). Neither good nor bad.

    A still picture repeated scores 0 and is ideal for every metric of consistency: read those beside this.
    """

    def scores(self, sample: Sample) -> Mapping[str, float]:
        return {"motion": temporal_information(sample.clip.frames) * sample.clip.frame_rate / 8}


class Flicker:
    """`flicker`: mean absolute RGB difference of consecutive frames (VBench's temporal flickering before its scale).

    `flicker_alternating` takes the part that goes back and forth: |f(t-1) - 2 f(t) + f(t+1)| / 2, which steady motion
    over smooth pictures hardly raises. Levels of 255.
    """

    def scores(self, sample: Sample) -> Mapping[str, float]:
        frames = sample.clip.frames
        scores = {"flicker": 0.0, "flicker_alternating": 0.0}
        if len(frames) > 1:
            steps = [
                float(np.abs(now.astype(np.int16) - before.astype(np.int16)).mean())
                for before, now in itertools.pairwise(frames)
            ]
            scores["flicker"] = float(np.mean(steps))
        if len(frames) > 2:
            bends = [
                float(np.abs(a.astype(np.int16) - 2 * b.astype(np.int16) + c.astype(np.int16)).mean()) / 2
                for a, b, c in zip(frames[:-2], frames[1:-1], frames[2:], strict=True)
            ]
            scores["flicker_alternating"] = float(np.mean(bends))
        return scores
