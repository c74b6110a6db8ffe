"""A frame-wise autoencoder without weights: the cosine transform of square blocks, with less of the chroma.

For toy upsamplers, whose operations should go into the transformer. Luma is kept whole and chroma at half resolution,
as H.264 video has it anyway, so that nothing visible of a video is lost. At full size the frame-wise autoencoder is the
image stage of the video autoencoder (conf/codec/paper_image.yaml, paper 3.1.5).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.types import Grid, Latent, VideoClip

LUMA = (0.299, 0.587, 0.114)  # BT.601
SPREAD = 2.0  # of the mean of a block of 4x4 pixels in [-1, 1], orthonormal; finer waves have less, by their frequency


class BlockCodec(nn.Module):
    """Blocks of factor x factor pixels to 1.5 factor^2 channels: all of luma, the lower quarter of each chroma.

    Latents are of about unit scale by a fixed law of spectra, so that nothing has to be fitted.
    """

    analysis: Tensor
    synthesis: Tensor
    temporal_factor = 1

    def __init__(self, factor: int = 4):
        super().__init__()
        if factor < 2 or factor % 2:
            raise ValueError(f"factor must be even and at least 2, got {factor}")
        self.spatial_factor, self.latent_channels = factor, factor * factor * 3 // 2
        analysis, synthesis = _transforms(factor)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)

    def grid(self, num_frames: int, height: int, width: int) -> Grid:
        """Latent size of a clip; raises ValueError where height or width is not a multiple of the factor."""
        if height % self.spatial_factor or width % self.spatial_factor:
            raise ValueError(f"{height}x{width} pixels: both must be multiples of {self.spatial_factor}")
        return Grid(num_frames, height // self.spatial_factor, width // self.spatial_factor)

    def encode(self, clip: VideoClip) -> Latent:
        """Frames [B, 3, T, H, W] to a latent of as many frames."""
        self.grid(*clip.frames.shape[2:])
        values = F.conv3d(clip.frames, self.analysis, stride=(1, self.spatial_factor, self.spatial_factor))
        return Latent(values, clip.frame_rate)

    def decode(self, latent: Latent, num_frames: int | None = None) -> VideoClip:
        """The clip of a latent, values clamped to [-1, 1]."""
        factor = self.spatial_factor
        frames = F.conv_transpose3d(latent.values, self.synthesis, stride=(1, factor, factor))
        return VideoClip(frames[:, :, :num_frames].clamp(-1, 1), latent.frame_rate)


def _transforms(factor: int) -> tuple[Tensor, Tensor]:
    """Weights of analysis and synthesis, [C, 3, 1, factor, factor] each."""
    place, wave = torch.arange(factor) + 0.5, torch.arange(factor)
    rows = torch.cos(math.pi / factor * wave[:, None] * place) * math.sqrt(2 / factor)
    rows[0] /= math.sqrt(2)
    waves = torch.einsum("iy,jx->ijyx", rows, rows)
    scale = (
        SPREAD * factor / 4 / (1 + 3 * (wave[:, None] ** 2 + wave**2))
    )  # about a power law of natural pictures
    luma = torch.tensor(LUMA)
    # Y, B - Y and R - Y, and back; green follows from luma.
    to_colors = torch.stack([luma, torch.tensor([0.0, 0, 1]) - luma, torch.tensor([1.0, 0, 0]) - luma])
    back = torch.linalg.inv(to_colors)
    analysis, synthesis = [], []
    for color, side in enumerate((factor, factor // 2, factor // 2)):
        some, sizes = waves[:side, :side].flatten(0, 1), scale[:side, :side].flatten()[:, None, None, None]
        analysis.append(some[:, None] * to_colors[color].view(3, 1, 1) / sizes)
        synthesis.append(some[:, None] * back[:, color].view(3, 1, 1) * sizes)
    return torch.cat(analysis)[:, :, None], torch.cat(synthesis)[:, :, None]
