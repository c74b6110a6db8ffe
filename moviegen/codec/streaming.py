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
from moviegen.codec.tiling import Tiling, decode_stream, encode_stream
from moviegen.pixels import from_uint8, to_uint8
from moviegen.types import Latent, VideoClip


def pad_to_multiple(frames: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last row and column of frames [T, H, W, 3] up to multiples of a number."""
    height, width = frames.shape[1:3]
    if height % multiple == 0 and width % multiple == 0:
        return frames
    return np.pad(frames, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


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
    rate = torch.tensor([frame_rate])

    def padded() -> Iterator[Tensor]:
        for chunk in chunks:
            sources.extend(frame.copy() for frame in chunk)
            yield from_uint8(pad_to_multiple(chunk, codec.spatial_factor))[None]

    def encode(frames: Tensor) -> Tensor:
        return codec.encode(VideoClip(frames, rate)).values

    def decode(latent: Tensor) -> Tensor:
        return codec.decode(Latent(latent, rate)).frames

    with torch.no_grad():
        latents = encode_stream(encode, padded(), tiling, codec.spatial_factor)
        for part in decode_stream(decode, latents, tiling, codec.spatial_factor, codec.temporal_factor):
            for frame in to_uint8(part[0]):
                if not sources:  # the codec's surplus frames at the end
                    return
                source = sources.popleft()
                yield source, frame[: source.shape[0], : source.shape[1]]
