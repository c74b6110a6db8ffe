"""The values that travel between modules: clips, latents, grids and batches.

Two layouts only. Grids inside codecs are channels-first ([B, C, T, H, W], [B, C, N]); token sequences are
[B, S, C] everywhere else. All types are frozen; `.to(...)` returns a moved copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


class Movable:
    """Mixin: `.to(...)` moves every tensor field; Lightning moves anything that has `.to`."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Return a copy with each tensor (also inside dicts, tuples and nested values) moved by `Tensor.to`."""
        assert is_dataclass(self)
        moved = {f.name: _move(getattr(self, f.name), args, kwargs) for f in fields(self)}
        return replace(self, **moved)


def _move(value: Any, args: tuple, kwargs: dict) -> Any:
    if isinstance(value, Tensor | Movable):
        return value.to(*args, **kwargs)
    if isinstance(value, dict):
        return {name: _move(item, args, kwargs) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_move(item, args, kwargs) for item in value)
    return value


@dataclass(frozen=True)
class Grid:
    """Size of a latent, or of a token grid, in cells: frames x height x width."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        return self.frames * self.height * self.width


@dataclass(frozen=True)
class VideoClip(Movable):
    """Videos of one size; an image is a video of one frame."""

    frames: Tensor  # [B, 3, T, H, W], float, -1 (black) to 1 (white)
    frame_rate: Tensor  # [B], frames per second; 0 for images


@dataclass(frozen=True)
class AudioClip(Movable):
    """Sounds of one length and rate."""

    samples: Tensor  # [B, C, N], float in [-1, 1]
    sample_rate_hz: int


@dataclass(frozen=True)
class Latent(Movable):
    """Codec output, normalised to zero mean and unit scale."""

    values: Tensor  # [B, C, T, H, W]
    frame_rate: Tensor  # [B], frames per second of the clip that was encoded


@dataclass(frozen=True)
class Batch(Movable):
    """One training batch: which samples, what is modelled, and the inputs of each condition."""

    keys: Tensor  # [B] int64, a stable hash of each sample's key: seeds its noise
    media: VideoClip | AudioClip | Latent
    inputs: dict[str, Any] = field(default_factory=dict)  # condition name -> collated field
    names: tuple[str, ...] = ()  # the keys themselves, to be named in messages
    duration: str = ""  # name of the duration of their bucket, where data.buckets has one

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def parts(self) -> tuple[Batch, ...]:
        """The batches of one size that this one is made of: itself."""
        return (self,)

    def video(self) -> VideoClip:
        """The media of a batch that must be video."""
        assert isinstance(self.media, VideoClip)
        return self.media


@dataclass(frozen=True)
class PackedBatch(Movable):
    """Batches of several sizes that one step takes together, in one sequence (see backbone/packing.py)."""

    parts: tuple[Batch, ...]

    @property
    def keys(self) -> Tensor:
        """[B] int64, over all parts."""
        return torch.cat([part.keys for part in self.parts])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.names)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)
