"""Is it the same person: cosine of face embeddings, by a TorchScript embedder (an ArcFace, say) given by path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from moviegen_eval.metrics.base import as_frames
from moviegen_eval.metrics.sample import Sample
from torch import Tensor

SIZE = 112  # pixels: what ArcFace models are given
MAX_FRAMES = 16
PREPROCESSING = f"{MAX_FRAMES} frames at even times, centered square, {SIZE}x{SIZE}, -1..1; no face detector"


class Identity:
    """`identity_mean`, `identity_best` and `identity_worst` over a clip's frames.

    Faces are not detected: a clip must be cropped to the face, or show it in its middle.

    Args:
        weights: TorchScript that turns float [N, 3, 112, 112] in -1..1 into [N, D].
    """

    def __init__(self, weights: str | Path):
        self.net = load_script(weights)

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.face is not None
        frames = sample.clip.frames
        picked = np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().astype(int)
        wanted = self._embed(sample.face[None])
        values = self._embed(frames[picked]) @ wanted[0]
        return {
            "identity_mean": float(values.mean()),
            "identity_best": float(values.max()),
            "identity_worst": float(values.min()),
        }

    @torch.no_grad()
    def _embed(self, frames: np.ndarray) -> Tensor:
        side = min(frames.shape[1:3])
        top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        pixels = as_frames(frames[:, top : top + side, left : left + side])
        small = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        return F.normalize(self.net(small / 127.5 - 1).float().flatten(1), dim=-1)


def load_script(weights: str | Path) -> torch.jit.ScriptModule:
    """A TorchScript file on the CPU; a ValueError where it is none."""
    try:
        return torch.jit.load(str(weights), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{weights}: is no TorchScript file ({str(error).splitlines()[0]})") from error
