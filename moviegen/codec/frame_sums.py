"""Temporal convolution as sums of matrix products of whole frames, written straight into the result.

A padded copy, copies of parts and a joining of outputs cost a CPU up to a tenth of the autoencoder's time
(experiments/speed/autoencoder).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Seen = tuple[int, ...]  # the input frame that each tap sees


def tap_order(weight: Tensor) -> Tensor:
    """Weights [O, C, K] as one contiguous matrix a tap, [K, O, C]; no copy where they lie so already."""
    return weight.permute(2, 0, 1).contiguous()


def sums_of_frames(x: Tensor, weight: Tensor, bias: Tensor, seen: Sequence[Seen]) -> Tensor:
    """Convolve over time, [B, C, T, H, W] with weight [O, C, K] -> [B, O, len(seen), H, W] in channels-last memory.

    Output frame t is the sum over taps k of weight[:, :, k] times input frame seen[t][k]; taps that see the same frame
    are added first, so that a repeated frame costs nothing. No gradients.
    """
    taps, bias = tap_order(weight.to(x.dtype)), bias.to(x.dtype)
    matrices: dict[tuple[int, ...], Tensor] = {}
    clips = x.permute(0, 2, 3, 4, 1).flatten(2, 3)  # [B, T, H * W, C]
    y = x.new_empty(len(x), len(seen), clips.shape[2], len(bias))
    for clip, outputs in zip(clips, y, strict=True):
        for output, frames in zip(outputs, seen, strict=True):
            start = bias
            for frame in dict.fromkeys(frames):
                which = tuple(tap for tap, other in enumerate(frames) if other == frame)
                if which not in matrices:
                    matrices[which] = (
                        taps[which[0] : which[-1] + 1].sum(0) if len(which) > 1 else taps[which[0]]
                    )
                torch.addmm(start, clip[frame], matrices[which].t(), out=output)
                start = output
    return y.unflatten(2, x.shape[-2:]).permute(0, 4, 1, 2, 3)
