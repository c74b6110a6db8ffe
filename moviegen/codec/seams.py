"""What tiling costs: a clip through a codec in tiles, held against the same clip through it whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moviegen.codec.streaming import tiled_stream
from moviegen.codec.tiling import Tiling, sliding_spans, windows
from moviegen.types import VideoClip

CAP = 100.0  # dB: of equal clips, whose PSNR is not finite


@dataclass(frozen=True)
class SeamReport:
    """Tiled against whole. Errors are in levels of 255; a seam is the two frames or lines at a tile's edge."""

    psnr: float  # dB, over all pixels
    max_error: float
    seam_psnr: float | None  # dB, over the seams' pixels; None where one tile covers the clip
    seam_max_error: float | None
    num_seam_pixels: int


@torch.no_grad()
def compare_tiled(codec: Any, clip: VideoClip, tiling: Tiling) -> SeamReport:
    """Reconstruct a clip [B, 3, T, H, W] whole and in tiles; the codec is any `LatentCodec` with its factors.

    Raises ValueError for tiles that are no multiple of the codec's factors.
    """
    tiling.check(codec.spatial_factor, codec.temporal_factor)
    whole = codec.decode(codec.encode(clip), clip.frames.shape[2]).frames
    error = (tiled_reconstruction(codec, clip, tiling) - whole).abs() * 127.5
    seams = seam_mask(clip.frames, tiling)
    at_seams = error[..., seams]
    return SeamReport(
        psnr=_psnr(error),
        max_error=float(error.max()),
        seam_psnr=_psnr(at_seams) if at_seams.numel() else None,
        seam_max_error=float(at_seams.max()) if at_seams.numel() else None,
        num_seam_pixels=int(seams.sum()),
    )


def tiled_reconstruction(codec: Any, clip: VideoClip, tiling: Tiling) -> Tensor:
    """A clip through the codec in tiles, frames [B, 3, T, H, W]."""
    parts = list(tiled_stream(codec, [clip.frames], clip.frame_rate, tiling))
    return torch.cat(parts, dim=2)[:, :, : clip.frames.shape[2]]


def seam_mask(frames: Tensor, tiling: Tiling) -> Tensor:
    """Which pixels [T, H, W] of frames [B, 3, T, H, W] lie at the edge of a tile, in time or in space."""
    lengths = frames.shape[2:]
    tiles = (
        (tiling.frames, tiling.frames_overlap),
        (tiling.size, tiling.size_overlap),
        (tiling.size, tiling.size_overlap),
    )
    mask = torch.zeros(lengths, dtype=torch.bool, device=frames.device)
    for axis, (length, (tile, overlap)) in enumerate(zip(lengths, tiles, strict=True)):
        if tile is None:  # whole, whatever the overlap
            continue
        cut = windows if axis else sliding_spans
        edges = {edge for span in cut(length, tile, overlap) for edge in span} - {0, length}
        places = torch.tensor(
            sorted({place for edge in edges for place in (edge - 1, edge)}), dtype=torch.long
        )
        mask.index_fill_(axis, places.to(mask.device), True)
    return mask


def _psnr(error: Tensor) -> float:
    mean = float(error.double().square().mean())
    return min(CAP, 10 * math.log10(255**2 / mean)) if mean else CAP
