"""Blocks of pixels as channels: the first and last layers then work at a fraction of the pixels.

Ours, not the paper's; LTX-Video (arXiv 2501.00103) and Wan 2.2 do the same. Frame by frame (`temporal` off) a frame
stands for a whole block of equal frames, so that inflation changes nothing on a single frame.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fold(frames: Tensor, size: int, temporal: bool) -> Tensor:
    """[B, C, T, H, W] -> [B, size^3 C, ceil(T / size), H / size, W / size]; frame by frame T stays.

    Where T is no multiple of `size`, the last frame fills up.
    """
    if size == 1:
        return frames
    if temporal:
        missing = -frames.shape[2] % size
        last = frames[:, :, -1:].expand(-1, -1, missing, -1, -1)
        blocks = torch.cat([frames, last], dim=2).unflatten(2, (-1, size))
    else:
        blocks = frames.unsqueeze(3).expand(-1, -1, -1, size, -1, -1)
    blocks = blocks.unflatten(5, (-1, size)).unflatten(4, (-1, size))  # [B, C, T, t, H, h, W, w]
    return blocks.permute(0, 3, 1, 5, 7, 2, 4, 6).flatten(1, 4)


def unfold(x: Tensor, size: int, temporal: bool) -> Tensor:
    """[B, size^3 C, T, H, W] -> [B, C, T size, H size, W size]; frame by frame the mean of each block's frames, T."""
    if size == 1:
        return x
    blocks = x.unflatten(1, (size, -1, size, size)).permute(0, 2, 5, 1, 6, 3, 7, 4)
    blocks = blocks.flatten(6, 7).flatten(4, 5)  # [B, C, T, t, H h, W w]
    return blocks.flatten(2, 3) if temporal else blocks.mean(3)
