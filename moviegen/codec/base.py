"""What every codec offers to the generators: media to normalised latents and back."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from moviegen.types import Latent


class LatentCodec(Protocol):
    """A frozen autoencoder as the flow models see it."""

    latent_channels: int

    def encode(self, clip: Any) -> Latent:
        """Media -> latent of zero mean and unit scale per channel."""
        ...

    def decode(self, latent: Latent, num_frames: int | None = None) -> Any:
        """Latent -> media of `num_frames` frames (all that were decoded where None)."""
        ...


class VideoCodec(LatentCodec, Protocol):
    """A codec of video: frames [B, 3, T, H, W] to latents of 1/factor the size, T rounded up."""

    @property
    def spatial_factor(self) -> int: ...

    @property
    def temporal_factor(self) -> int: ...


class LatentStats(nn.Module):
    """Per-channel mean and scale that bring raw latents [B, C, ...] to zero mean and unit scale."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def fit(self, latents: Tensor) -> None:
        """Set the statistics from raw latents [N, C, ...]."""
        per_channel = latents.float().transpose(0, 1).flatten(1)
        self.mean.copy_(per_channel.mean(1))
        self.scale.copy_(per_channel.std(1).clamp_min(1e-6))

    def normalize(self, raw: Tensor) -> Tensor:
        return (raw - self._like(self.mean, raw)) / self._like(self.scale, raw)

    def denormalize(self, values: Tensor) -> Tensor:
        return values * self._like(self.scale, values) + self._like(self.mean, values)

    @staticmethod
    def _like(statistic: Tensor, x: Tensor) -> Tensor:
        return statistic.view(1, -1, *[1] * (x.ndim - 2))
