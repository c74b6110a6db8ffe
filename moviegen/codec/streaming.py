"""Clips of any length and size through a codec: chunks of frames in, pairs of source and reconstruction out.

What is held is a tile, its overlap and a chunk, however long the clip is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from moviegen.codec.base import VideoCodec
from moviegen.codec.tiling import Tiling, crossfaded, decode_stream, encode_stream, sliding, spatially_tiled
from moviegen.pixels import from_uint8, to_uint8
from moviegen.types import Latent, VideoClip


def pad_to_multiple(frames: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last row and column of frames [T, H, W, 3] up to multiples of a number."""
    height, width = frames.shape[1:3]
    if height % multiple == 0 and width % multiple == 0:
        return frames
    return np.pad(frames, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


@torch.no_grad()
def tiled_stream(
    codec: VideoCodec, chunks: Iterable[Tensor], frame_rate: Tensor, tiling: Tiling
) -> Iterator[Tensor]:
    """Frames of a clip through a codec in tiles, of chunks [B, 3, t, H, W] along time; surplus frames may follow.

    Codecs whose latents cut time evenly are tiled as in the paper (3.1.1: encode without overlap, decode with).
    Latents of a causal codec begin with a frame of their own, so each of its tiles in time is encoded and decoded
    by itself, and the frames are cross-faded.
    """
    factor, overlap = codec.spatial_factor, tiling.frames_overlap
    latent_tile = None if tiling.size is None else tiling.size // factor

    def encode(frames: Tensor) -> Tensor:
        return codec.encode(VideoClip(frames, frame_rate)).values

    def decode(values: Tensor) -> Tensor:
        return codec.decode(Latent(values, frame_rate)).frames

    def through(frames: Tensor) -> Tensor:
        values = spatially_tiled(encode, frames, tiling.size, tiling.size_overlap, 1 / factor)
        found = spatially_tiled(decode, values, latent_tile, tiling.size_overlap // factor, factor)
        return found[:, :, : frames.shape[2]]

    if not getattr(codec, "causal", False):
        latents = encode_stream(encode, chunks, tiling, factor)
        yield from decode_stream(decode, latents, tiling, factor, codec.temporal_factor)
    elif tiling.frames is None:
        yield through(torch.cat(list(chunks), dim=2))
    else:
        yield from crossfaded(map(through, sliding(chunks, tiling.frames, overlap)), overlap)


def reconstruct_stream(
    codec: VideoCodec, chunks: Iterable[np.ndarray], frame_rate: float, tiling: Tiling
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (source, reconstruction) for each frame, both uint8 [H, W, 3], of chunks uint8 [t, H, W, 3] of one size.

    Sizes that are no multiple of the codec's factor are padded with their last row and column, and cropped back.

    Raises:
        ValueError: tiles that do not fit the codec's factors.
    """
    tiling.check(codec.spatial_factor, codec.temporal_factor)
    sources: deque[np.ndarray] = deque()  # frames whose reconstruction is still to come

    def padded() -> Iterator[Tensor]:
        for chunk in chunks:
            sources.extend(frame.copy() for frame in chunk)
            yield from_uint8(pad_to_multiple(chunk, codec.spatial_factor))[None]

    for part in tiled_stream(codec, padded(), torch.tensor([frame_rate]), tiling):
        for frame in to_uint8(part[0]):
            if not sources:  # the codec's surplus frames at the end
                return
            source = sources.popleft()
            yield source, frame[: source.shape[0], : source.shape[1]]
