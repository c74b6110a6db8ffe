"""A video of low resolution that is to be made sharp: its latent on the channels of each token (paper 3.1.5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from moviegen.codec.layers import to_frames
from moviegen.conditioning.base import Conditioner
from moviegen.fields import VIDEO
from moviegen.types import Grid, Latent


class LowResolution(Conditioner):
    """The latent of a video that was upsampled to the size of the clip, cell by cell.

    The task encodes it, with the codec that the clip itself is coded with. It is a must: no sample loses it.

    Args:
        dim: model width; not used, what is joined to the input has the width of a token.
        latent_channels: of the codec.
        patch: the backbone's; one latent frame a token.
        margin: cells around a token's own that it is shown as well, which the paper has not (0). Without them tokens
            know of their neighbours by attention alone.
    """

    port = "concat"
    field = VIDEO  # the task makes a low-resolution video of the clip itself

    def __init__(
        self,
        dim: int,  # noqa: ARG002
        latent_channels: int = 16,
        patch: tuple[int, int, int] = (1, 2, 2),
        margin: int = 0,
    ):
        frames, height, width = patch
        if frames != 1 or margin < 0:
            raise ValueError(f"patch must be (1, h, w) and margin at least 0, got {patch} and {margin}")
        self.size = (height + 2 * margin, width + 2 * margin)
        super().__init__(width=latent_channels * self.size[0] * self.size[1], drop_prob=0.0)
        assert self.null is not None
        self.null.requires_grad_(False)  # never dropped
        self.patch, self.margin = (height, width), margin

    def padded(self, latent: Tensor) -> Tensor:
        """A latent [B, C, T, H, W] with `margin` more cells on each side, as at its edges."""
        return F.pad(latent, (self.margin,) * 4 + (0, 0), mode="replicate") if self.margin else latent

    def tokens(self, padded: Tensor) -> Tensor:
        """Channels [B, S, C * cells] for the tokens of a padded latent."""
        count = padded.shape[2]
        columns = F.unfold(to_frames(padded).contiguous(), self.size, stride=self.patch)  # [B T, C k, S / T]
        return columns.transpose(1, 2).unflatten(0, (-1, count)).flatten(1, 2)

    def forward(self, inputs: Latent | Tensor, grid: Grid) -> Tensor:
        """Channels [B, S, C * cells] of the latent of a low-resolution video, of the size of the clip's.

        A tensor is passed on: what `tokens` made of a part of a larger latent, which has true cells around it.
        """
        if isinstance(inputs, Tensor):
            return inputs
        found = Grid(
            inputs.values.shape[2],
            *(n // p for n, p in zip(inputs.values.shape[3:], self.patch, strict=True)),
        )
        if found != grid:
            raise ValueError(f"the low-resolution video is of {found}, the clip is of {grid}")
        return self.tokens(self.padded(inputs.values))
