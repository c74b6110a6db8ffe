"""Latent grids to token sequences and back: the only rearrangement in the project."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from moviegen.types import Grid


def patched(size: Sequence[int], patch: Sequence[int]) -> Grid:
    """The grid of tokens of a latent of (frames, height, width) cells; raises ValueError where it does not divide."""
    if any(n % p for n, p in zip(size, patch, strict=True)):
        raise ValueError(f"latent of {tuple(size)} cells does not divide into patches of {tuple(patch)}")
    return Grid(*(n // p for n, p in zip(size, patch, strict=True)))


def patchify(latent: Tensor, patch: tuple[int, int, int]) -> tuple[Tensor, Grid]:
    """[B, C, T, H, W] -> tokens [B, S, C * pt * ph * pw] in raster order, and their grid.

    Together with a linear layer this is the paper's convolution of kernel and stride `patch` (3.1.2).
    """
    batch, channels, *size = latent.shape
    grid = patched(size, patch)
    (pt, ph, pw), (t, h, w) = patch, (grid.frames, grid.height, grid.width)
    blocks = latent.reshape(batch, channels, t, pt, h, ph, w, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return blocks.reshape(batch, t * h * w, channels * pt * ph * pw), grid


def unpatchify(tokens: Tensor, grid: Grid, patch: tuple[int, int, int]) -> Tensor:
    """Inverse of `patchify`: [B, S, C * pt * ph * pw] -> [B, C, T, H, W]."""
    pt, ph, pw = patch
    blocks = tokens.reshape(len(tokens), grid.frames, grid.height, grid.width, -1, pt, ph, pw)
    blocks = blocks.permute(0, 4, 1, 5, 2, 6, 3, 7)
    return blocks.reshape(len(tokens), -1, grid.frames * pt, grid.height * ph, grid.width * pw)
