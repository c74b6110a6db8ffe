"""A linear block transform beside the autoencoder's layers: what principal components can do, learned in seconds.

Ours, not the paper's: in the minutes tried so far the layers alone stayed far below the best linear code, which this
path learns in seconds (experiments/toy/README.md has the figures).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BlockTransform(nn.Module):
    """Blocks of factor_t x factor x factor pixels to latent channels and back, each by one matrix.

    All frames of a block start with the same weights, and frame by frame (`temporal` off) their sum and mean are used:
    inflation changes nothing on a single frame.
    """

    def __init__(self, latent_channels: int, factor: int, factor_t: int):
        super().__init__()
        self.factor, self.factor_t = factor, factor_t
        self.analysis = nn.Parameter(torch.empty(latent_channels, 3, factor_t, factor, factor))
        self.synthesis = nn.Parameter(torch.empty(latent_channels, 3, factor_t, factor, factor))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        shape = (*self.analysis.shape[:2], 1, self.factor, self.factor)
        with torch.no_grad():
            self.analysis.copy_(torch.randn(shape) / (3 * self.factor**2) ** 0.5 / self.factor_t)
            self.synthesis.copy_(torch.randn(shape) / shape[0] ** 0.5 / self.factor)

    def encode(self, frames: Tensor, temporal: bool) -> Tensor:
        """[B, 3, T, H, W] -> [B, C, ceil(T / factor_t), H / factor, W / factor]; the last frame fills up."""
        if not temporal:
            return F.conv3d(frames, self.analysis.sum(2, keepdim=True), stride=(1, self.factor, self.factor))
        missing = -frames.shape[2] % self.factor_t
        if missing:
            frames = torch.cat([frames, frames[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
        return F.conv3d(frames, self.analysis, stride=(self.factor_t, self.factor, self.factor))

    def decode(self, latent: Tensor, temporal: bool) -> Tensor:
        """[B, C, T, H, W] -> [B, 3, T * factor_t, H * factor, W * factor]."""
        weight = self.synthesis if temporal else self.synthesis.mean(2, keepdim=True)
        return F.conv_transpose3d(latent, weight, stride=weight.shape[2:])
