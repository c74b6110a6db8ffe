"""Long and large clips in tiles, for any codec, in memory that does not grow with the clip (paper 3.1.1).

In time the paper encodes 32 frames at a time without overlap and decodes with 16 frames of overlap, joined by a linear
cross-fade. In space both overlap and are cross-faded. Streams are iterators of chunks along time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moviegen.types import Latent, VideoClip

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiling:
    """How a clip is cut; None for a size means whole.

    Raises:
        ValueError: an overlap that is not smaller than its tile.
    """

    frames: int | None = 32  # raw frames of a tile
    frames_overlap: int = 16  # of decoding; encoding has none
    size: int | None = None  # pixels of a tile's sides
    size_overlap: int = 64

    def __post_init__(self) -> None:
        pairs = (("frames", self.frames, self.frames_overlap), ("size", self.size, self.size_overlap))
        for name, tile, overlap in pairs:
            if tile is not None and not 0 <= overlap < tile:
                raise ValueError(
                    f"tiles of {name}={tile} need an overlap from 0 to {tile - 1}, got {overlap}"
                )

    def holds(self, frames: int, height: int, width: int) -> bool:
        """Whether a clip of so many frames and pixels is no larger than a tile."""
        in_time = self.frames is None or frames <= self.frames
        return in_time and (self.size is None or max(height, width) <= self.size)

    def check(self, spatial_factor: int, temporal_factor: int) -> None:
        """Raise ValueError where a tile, or the overlap of one, is no multiple of the codec's factor."""
        for name, tile, overlap, factor in (
            ("frames", self.frames, self.frames_overlap, temporal_factor),
            ("size", self.size, self.size_overlap, spatial_factor),
        ):
            if tile is None:  # whole: its overlap is not used
                continue
            for key, value in ((name, tile), (f"{name}_overlap", overlap)):
                if value % factor:
                    raise ValueError(f"tiling.{key} must be a multiple of the codec's {factor}, got {value}")


def windows(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Starts and stops that cover 0 to length: equal tiles, neighbours share `overlap` or (the last two) more."""
    if length <= tile:
        return [(0, length)]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [(start, start + tile) for start in starts]


def ramp(length: int, rising: int, falling: int) -> Tensor:
    """Weights [length] of a tile: up over its first `rising` places, down over its last `falling`, 1 between."""
    place = torch.arange(length) + 0.5
    up = (place / rising).clamp(max=1) if rising else torch.ones(length)
    down = ((length - place) / falling).clamp(max=1) if falling else torch.ones(length)
    return up * down


def spatially_tiled(run: Map, x: Tensor, tile: int | None, overlap: int, scale: float) -> Tensor:
    """`run` over square tiles of x [B, C, T, H, W], cross-faded; the output has `scale` times the height and width."""
    height, width = x.shape[-2:]
    if tile is None or max(height, width) <= tile:
        return run(x)
    total: Tensor | None = None
    weight = torch.zeros(round(height * scale), round(width * scale), device=x.device)
    for top, bottom in windows(height, tile, overlap):
        for left, right in windows(width, tile, overlap):
            part = run(x[..., top:bottom, left:right])
            rows, columns = (
                slice(round(a * scale), round(b * scale)) for a, b in ((top, bottom), (left, right))
            )
            fade = torch.outer(*(
                ramp(n, round(overlap * scale) if a > 0 else 0, round(overlap * scale) if b < end else 0)
                for n, a, b, end in ((part.shape[-2], top, bottom, height), (part.shape[-1], left, right, width))
            )).to(part)  # fmt: skip
            if total is None:
                total = part.new_zeros(*part.shape[:-2], *weight.shape)
            total[..., rows, columns] += fade * part
            weight[rows, columns] += fade
    assert total is not None
    return total / weight


def sliding(chunks: Iterable[Tensor], tile: int, overlap: int) -> Iterator[Tensor]:
    """Windows of `tile` along time that share `overlap` with the next; the last is shorter, but more than `overlap`."""
    buffer: Tensor | None = None
    for chunk in chunks:
        buffer = chunk if buffer is None else torch.cat([buffer, chunk], dim=2)
        while buffer.shape[2] > tile:
            yield buffer[:, :, :tile]
            buffer = buffer[:, :, tile - overlap :]
    if buffer is not None:
        yield buffer


def sliding_spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Starts and stops of the windows that `sliding` gives of so many frames."""
    starts = range(0, max(1, length - overlap), tile - overlap)
    return [(start, min(start + tile, length)) for start in starts]


def encode_stream(
    run: Map, chunks: Iterable[Tensor], tiling: Tiling, spatial_factor: int
) -> Iterator[Tensor]:
    """Latents of frames that arrive in chunks [B, 3, t, H, W], tile by tile.

    Args:
        run: the codec's encoder, frames [B, 3, t, h, w] -> latents.
    """
    whole = tiling.frames is None
    for chunk in [torch.cat(list(chunks), dim=2)] if whole else sliding(chunks, tiling.frames or 1, 0):
        yield spatially_tiled(run, chunk, tiling.size, tiling.size_overlap, 1 / spatial_factor)


def encode_tiled(codec: Any, clip: VideoClip) -> Tensor:
    """Normalised latents [B, C, t, h, w] of a clip of any size, in tiles of four latent frames and 32 cells a side.

    A causal codec, which cuts time unevenly, is tiled in space alone. A clip no larger than a tile is encoded whole.
    """
    t, s = codec.temporal_factor, codec.spatial_factor
    tiling = Tiling(
        4 * t, frames_overlap=0, size=32 * s, size_overlap=8 * s
    )  # frames of the paper; sides are ours
    return encoded(codec, [clip.frames], clip.frame_rate, tiling).values


def decode_stream(
    run: Map, chunks: Iterable[Tensor], tiling: Tiling, spatial_factor: int, temporal_factor: int
) -> Iterator[Tensor]:
    """Frames of latents that arrive in chunks [B, C, t, h, w]; overlapping tiles are cross-faded in time.

    Args:
        run: the codec's decoder, latents [B, C, t, h, w] -> frames [B, 3, t * temporal_factor, ...].
    """
    size = None if tiling.size is None else tiling.size // spatial_factor

    def decode(latent: Tensor) -> Tensor:
        return spatially_tiled(run, latent, size, tiling.size_overlap // spatial_factor, spatial_factor)

    if tiling.frames is None:
        yield decode(torch.cat(list(chunks), dim=2))
        return
    tile, overlap = tiling.frames // temporal_factor, tiling.frames_overlap // temporal_factor
    yield from crossfaded(map(decode, sliding(chunks, tile, overlap)), overlap * temporal_factor)


def encoded(codec: Any, chunks: Iterable[Tensor], frame_rate: Tensor, tiling: Tiling) -> Latent:
    """A normalised latent of frames that arrive in chunks [B, 3, t, H, W], in tiles that fit the codec (`check`).

    Clips of a causal codec, whose latents cut time unevenly, are encoded whole along time.
    """

    def encode(frames: Tensor) -> Tensor:
        return codec.encode(VideoClip(frames, frame_rate)).values

    parts = encode_stream(encode, chunks, _in_time(codec, tiling), codec.spatial_factor)
    return Latent(torch.cat(list(parts), dim=2), frame_rate)


def decoded(codec: Any, latent: Latent, tiling: Tiling | None = None) -> Iterator[Tensor]:
    """Frames [B, 3, t, H, W] of a normalised latent, the surplus at the end too; without `tiling` in the paper's tiles
    of four latent frames.

    Latents of a causal codec, which cut time unevenly, are decoded whole along time.
    """
    unit, parts = codec.temporal_factor, latent.values.split(1, dim=2)

    def decode(values: Tensor) -> Tensor:
        return codec.decode(Latent(values, latent.frame_rate)).frames

    tiling = _in_time(codec, tiling or Tiling(frames=4 * unit, frames_overlap=2 * unit))
    yield from decode_stream(decode, parts, tiling, codec.spatial_factor, unit)


def _in_time(codec: Any, tiling: Tiling) -> Tiling:
    """The tiles that a codec may be given: none along time of a causal one."""
    return replace(tiling, frames=None) if getattr(codec, "causal", False) else tiling


def crossfaded(parts: Iterable[Tensor], shared: int) -> Iterator[Tensor]:
    """Join parts [B, C, t, h, w] along time, each of which shares `shared` frames with the next, by a linear fade."""
    fade = (torch.arange(shared) + 0.5).view(-1, 1, 1) / max(1, shared)
    tail: Tensor | None = None  # frames that the next part shares, not yet given out
    for part in parts:
        frames = part
        if tail is not None:
            joined = torch.lerp(tail, frames[:, :, :shared], fade.to(frames))
            frames = torch.cat([joined, frames[:, :, shared:]], dim=2)
        length = max(0, frames.shape[2] - shared)
        if length:
            yield frames[:, :, :length]
        tail = frames[:, :, length:]
    if tail is not None and shared:
        yield tail


def num_latent_frames(num_frames: int, tiling: Tiling, temporal_factor: int) -> int:
    """How many latent frames `encode_stream` gives for a clip."""
    if tiling.frames is None:
        return math.ceil(num_frames / temporal_factor)
    whole, rest = divmod(num_frames, tiling.frames)
    return whole * tiling.frames // temporal_factor + math.ceil(rest / temporal_factor)
