"""Temporal autoencoder: 8x8x8 compression of video to 16 channels; an image is a one-frame video (paper 3.1.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moviegen.codec.base import LatentStats
from moviegen.codec.folding import fold, unfold
from moviegen.codec.layers import Attention, Down, FrameNorm, ResBlock, Up, conv_class
from moviegen.codec.linear import BlockTransform
from moviegen.types import Grid, Latent, VideoClip


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over latents, each [B, C, T, H, W]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw from standard normal `noise` of the mean's shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Tensor:
        """KL divergence to the standard normal, mean over latent elements, [B]."""
        kl = 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)
        return kl.flatten(1).mean(1)


# A new encoder starts almost deterministic, or its noise would drown the first steps.
INITIAL_LOG_VARIANCE = -6.0


def _blocks(levels: nn.ModuleList) -> list[nn.Module]:
    return [block for level in levels for block in level.children()]


def _middle(channels: int, full_3d: bool) -> nn.ModuleList:
    """The layers at the coarsest resolution, alike in encoder and decoder."""
    block = (ResBlock(channels, channels, full_3d) for _ in range(2))
    return nn.ModuleList([next(block), Attention(channels, full_3d), next(block)])


class Encoder(nn.Module):
    """Folded pixels [B, C, T, H, W] -> mean and log variance [B, 2 * latent_channels, T/f, H/f, W/f]."""

    def __init__(
        self,
        channels: tuple[int, ...],
        latent_channels: int,
        num_res_blocks: tuple[int, ...],
        temporal_levels: int,
        pixel_channels: int,
        full_3d: bool = False,
    ):
        super().__init__()
        conv = conv_class(full_3d)
        self.conv_in = conv(pixel_channels, channels[0])
        self.levels = nn.ModuleList()
        c_in = channels[0]
        for level, c_out in enumerate(channels):
            count = num_res_blocks[level]
            blocks = nn.ModuleList(ResBlock(c_in if i == 0 else c_out, c_out, full_3d) for i in range(count))
            if level < len(channels) - 1:
                blocks.append(Down(c_out, 2 if level < temporal_levels else 1, full_3d))
            self.levels.append(blocks)
            c_in = c_out
        self.middle = _middle(c_in, full_3d)
        self.norm_out = FrameNorm(c_in)
        self.conv_out = conv(c_in, 2 * latent_channels)
        nn.init.constant_(self.conv_out.spatial.get_parameter("bias")[latent_channels:], INITIAL_LOG_VARIANCE)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        h = self.conv_in(x, temporal)
        for block in (*_blocks(self.levels), *self.middle):
            h = block(h, temporal)
        return self.conv_out(self.norm_out.activated(h), temporal)


class Decoder(nn.Module):
    """The mirror of the encoder: [B, latent_channels, T/f, H/f, W/f] -> folded pixels [B, C, T, H, W]."""

    def __init__(
        self,
        channels: tuple[int, ...],
        latent_channels: int,
        num_res_blocks: tuple[int, ...],
        temporal_levels: int,
        pixel_channels: int,
        fold: int,
        full_3d: bool = False,
    ):
        super().__init__()
        c_in, conv = channels[-1], conv_class(full_3d)
        self.conv_in = conv(latent_channels, c_in)
        self.middle = _middle(c_in, full_3d)
        self.levels = nn.ModuleList()
        for level in reversed(range(len(channels))):
            c_out = channels[level]
            count = num_res_blocks[level]
            blocks = nn.ModuleList(ResBlock(c_in if i == 0 else c_out, c_out, full_3d) for i in range(count))
            c_in = c_out
            if level > 0:
                c_in = c_out if num_res_blocks[level - 1] else channels[level - 1]  # no block to narrow it
                blocks.append(Up(c_out, c_in, 2 if level <= temporal_levels else 1, full_3d))
            self.levels.append(blocks)
        self.norm_out = FrameNorm(c_in)
        self.conv_out = conv(c_in, pixel_channels)
        with torch.no_grad():  # all frames of a block alike
            for parameter in self.conv_out.spatial.parameters():
                frames = parameter.unflatten(0, (fold, -1))
                frames.copy_(frames[:1].clone().expand_as(frames))

    def forward(self, latent: Tensor, temporal: bool) -> Tensor:
        h = self.conv_in(latent, temporal)
        for block in (*self.middle, *_blocks(self.levels)):
            h = block(h, temporal)
        return self.conv_out(self.norm_out.activated(h), temporal)


def _full(x: Tensor) -> Tensor:
    """Half precision to float32; wider types stay."""
    return x.float() if x.dtype.itemsize < 4 else x


class TemporalAutoencoder(nn.Module):
    """The video autoencoder and, with `temporal` off, the image autoencoder that it is inflated from.

    Args:
        channels: widths of the resolution levels, finest first; height and width halve between levels.
        latent_channels: 16 in the paper.
        encoder_blocks, decoder_blocks: residual blocks of each level (LDM: n and n + 1 everywhere); the finest
            level may have none.
        temporal_levels: how many of the first levels also halve time; 3 gives the paper's 8x.
        fold: blocks of fold x fold x fold pixels become channels before the first layer. Not in the paper (1).
        linear: add a learned linear block transform beside encoder and decoder, whose last layers then start at zero.
        temporal: False makes it a frame-wise image autoencoder: no temporal layer runs and T is kept.
        full_3d: 3D convolutions and 3D attention in place of the 2.5D ones: the paper's ablation (its table 12). It
            too starts equal to its image autoencoder on a single frame, since all taps but the middle one start at
            zero.
    """

    def __init__(  # noqa: PLR0913 (settings, given by name from a config)
        self,
        channels: tuple[int, ...] = (128, 256, 512, 512),
        latent_channels: int = 16,
        encoder_blocks: tuple[int, ...] = (2, 2, 2, 2),
        decoder_blocks: tuple[int, ...] = (3, 3, 3, 3),
        temporal_levels: int = 3,
        fold: int = 1,
        linear: bool = False,
        temporal: bool = True,
        full_3d: bool = False,
    ):
        super().__init__()
        for blocks in (encoder_blocks, decoder_blocks):
            if len(blocks) != len(channels) or min(blocks[1:]) < 1:
                raise ValueError(
                    f"need a block count for each of {len(channels)} levels, got {tuple(blocks)}"
                )
        if not 0 <= temporal_levels < len(channels):
            raise ValueError(f"temporal_levels must be in 0..{len(channels) - 1}, got {temporal_levels}")
        pixel_channels = 3 * fold**3
        self.encoder = Encoder(
            channels, latent_channels, encoder_blocks, temporal_levels, pixel_channels, full_3d
        )
        self.decoder = Decoder(
            channels, latent_channels, decoder_blocks, temporal_levels, pixel_channels, fold, full_3d
        )
        self.stats = LatentStats(latent_channels)
        self.latent_channels, self.fold = latent_channels, fold
        self.spatial_factor = fold * 2 ** (len(channels) - 1)
        self.video_factor = fold * 2**temporal_levels
        self.linear = (
            BlockTransform(latent_channels, self.spatial_factor, self.video_factor) if linear else None
        )
        if linear:
            nn.init.zeros_(self.encoder.conv_out.spatial.weight)
            nn.init.zeros_(self.decoder.conv_out.spatial.weight)
        self.temporal = temporal

    @property
    def last_layer(self) -> Tensor:
        """The weight where an adaptive adversarial loss compares gradients."""
        return self.decoder.conv_out.spatial.weight

    @property
    def temporal_factor(self) -> int:
        return self.video_factor if self.temporal else 1

    def grid(self, num_frames: int, height: int, width: int) -> Grid:
        """Latent size of a clip; raises ValueError where height or width is not a multiple of the factor."""
        if height % self.spatial_factor or width % self.spatial_factor:
            raise ValueError(f"{height}x{width} pixels: both must be multiples of {self.spatial_factor}")
        latent_frames = math.ceil(num_frames / self.temporal_factor)
        return Grid(latent_frames, height // self.spatial_factor, width // self.spatial_factor)

    def posterior(self, frames: Tensor) -> Posterior:
        """Encode frames [B, 3, T, H, W] in [-1, 1] to a Gaussian over unnormalised latents."""
        self.grid(*frames.shape[2:])
        x = fold(frames, self.fold, self.temporal).contiguous(memory_format=torch.channels_last_3d)
        mean, log_variance = _full(self.encoder(x, self.temporal)).chunk(2, dim=1)
        if self.linear is not None:
            mean = mean + _full(self.linear.encode(frames, self.temporal))
        return Posterior(mean, log_variance.clamp(-30, 20))

    def reconstruct(self, latent: Tensor, num_frames: int | None = None) -> Tensor:
        """Decode unnormalised latents [B, C, T, H, W]; frames past `num_frames` are spurious and dropped."""
        x = latent.contiguous(memory_format=torch.channels_last_3d)
        frames = unfold(_full(self.decoder(x, self.temporal)), self.fold, self.temporal)
        if self.linear is not None:
            frames = frames + _full(self.linear.decode(latent, self.temporal))
        return frames[:, :, :num_frames]

    def encode(self, clip: VideoClip) -> Latent:
        """Normalised posterior mean of a clip, T frames -> ceil(T / 8) latent frames."""
        return Latent(self.stats.normalize(self.posterior(clip.frames).mean), clip.frame_rate)

    def decode(self, latent: Latent, num_frames: int | None = None) -> VideoClip:
        """The clip of a normalised latent, values clamped to [-1, 1]."""
        frames = self.reconstruct(self.stats.denormalize(latent.values), num_frames)
        return VideoClip(frames.clamp(-1, 1), latent.frame_rate)
