"""What tiling costs: a clip through a codec in tiles, held against the same clip through it whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moviegen.codec.tiling import Tiling, decode_stream, encode_stream, ramp, spatially_tiled, windows
from moviegen.types import Latent, VideoClip

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


@torch.no_grad()
def tiled_reconstruction(codec: Any, clip: VideoClip, tiling: Tiling) -> Tensor:
    """A clip through the codec in tiles, frames [B, 3, T, H, W].

    Codecs whose latents cut time evenly are tiled as in the paper (3.1.1: encode without overlap, decode with).
    Latents of a causal codec begin with a frame of their own, so each of its tiles in time is encoded and decoded
    by itself, and the frames are cross-faded.
    """
    factor, num_frames = codec.spatial_factor, clip.frames.shape[2]

    def encode(frames: Tensor) -> Tensor:
        return codec.encode(VideoClip(frames, clip.frame_rate)).values

    def decode(values: Tensor) -> Tensor:
        return codec.decode(Latent(values, clip.frame_rate)).frames

    if not getattr(codec, "causal", False):
        latents = encode_stream(encode, [clip.frames], tiling, factor)
        return torch.cat(list(decode_stream(decode, latents, tiling, factor, codec.temporal_factor)), 2)[
            :, :, :num_frames
        ]
    latent_tile = None if tiling.size is None else tiling.size // factor
    total, weight = torch.zeros_like(clip.frames), torch.zeros(num_frames, 1, 1, device=clip.frames.device)
    overlap = tiling.frames_overlap
    for start, stop in windows(num_frames, tiling.frames or num_frames, overlap):
        part = clip.frames[:, :, start:stop]
        values = spatially_tiled(encode, part, tiling.size, tiling.size_overlap, 1 / factor)
        frames = spatially_tiled(decode, values, latent_tile, tiling.size_overlap // factor, factor)
        rising, falling = overlap if start else 0, overlap if stop < num_frames else 0
        fade = ramp(stop - start, rising, falling).view(-1, 1, 1).to(weight)
        total[:, :, start:stop] += fade * frames[:, :, : stop - start]
        weight[start:stop] += fade
    return total / weight


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
        edges = {edge for span in windows(length, tile or length, overlap) for edge in span} - {0, length}
        places = torch.tensor(
            sorted({place for edge in edges for place in (edge - 1, edge)}), dtype=torch.long
        )
        mask.index_fill_(axis, places.to(mask.device), True)
    return mask


def _psnr(error: Tensor) -> float:
    mean = float(error.double().square().mean())
    return min(CAP, 10 * math.log10(255**2 / mean)) if mean else CAP
