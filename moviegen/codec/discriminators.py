"""Patch discriminators of images and videos (PatchGAN; Isola et al. 2017), in two and in three dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moviegen.codec.layers import to_frames


class PatchDiscriminator(nn.Module):
    """Scores of patches, clips [B, 3, T, H, W] in [-1, 1] -> [B, N]: high where they look real.

    Args:
        channels: width of the first layer; doubles with each layer, up to eight times.
        num_layers: strided layers; each doubles the patch that a score sees.
        dims: 2 judges frame by frame, 3 also how they follow each other (time is strided in the second layer on, so
            that short clips keep a frame).
    """

    def __init__(self, channels: int = 64, num_layers: int = 3, dims: int = 2):
        super().__init__()
        if dims not in (2, 3):
            raise ValueError(f"a discriminator has 2 or 3 dimensions, got {dims}")
        if num_layers < 1:
            raise ValueError(f"a discriminator has at least one strided layer, got {num_layers}")
        self.dims = dims
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        widths = [min(2**i, 8) * channels for i in range(num_layers + 1)]
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            strided = index < num_layers
            c_in = 3 if index == 0 else widths[index - 1]
            layers.append(conv(c_in, width, **_shape(dims, 2 if strided else 1, index), bias=index == 0))
            if index > 0:
                layers.append(nn.GroupNorm(min(32, width // 4), width))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(conv(widths[-1], 1, **_shape(dims, 1, num_layers)))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.normal_(module.weight, 0.0, 0.02)  # as pix2pix and LDM start theirs

    def forward(self, clips: Tensor) -> Tensor:
        if self.dims == 3:
            return self.layers(clips).flatten(1)
        scores = self.layers(to_frames(clips)).flatten(1)  # [B*T, N]
        return scores.unflatten(0, (len(clips), -1)).flatten(1)


def _shape(dims: int, stride: int, index: int) -> dict:
    """Kernel, stride and padding of a layer: 4x4 in space, 3 frames in time, strided there from the second layer on."""
    space = {"kernel_size": (4, 4), "stride": (stride, stride), "padding": (1, 1)}
    if dims == 2:
        return space
    time = {"kernel_size": 3, "stride": stride if index > 0 else 1, "padding": 1}
    return {name: (time[name], *value) for name, value in space.items()}


class VideoDiscriminator(nn.Module):
    """One judge of frames and one of motion, clips [B, 3, T, H, W] -> scores [B, N]; an image meets the first alone."""

    def __init__(self, channels: int = 64, num_layers: int = 3):
        super().__init__()
        self.frames = PatchDiscriminator(channels, num_layers, dims=2)
        self.motion = PatchDiscriminator(channels, num_layers, dims=3)

    def forward(self, clips: Tensor) -> Tensor:
        by_frame = self.frames(clips)
        if clips.shape[2] == 1:
            return by_frame
        return torch.cat([by_frame, self.motion(clips)], dim=1)
