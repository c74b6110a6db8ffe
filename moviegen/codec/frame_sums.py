"""Temporal convolution as sums of matrix products of whole frames, written straight into the result.

A padded copy, copies of parts and a joining of outputs cost a CPU up to a tenth of the autoencoder's time
(experiments/speed/autoencoder).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

Seen = tuple[int, ...]  # the input frame that each tap sees
# oneDNN's matrix product, twice as fast as MKL's on processors of AMD with 512-bit units; absent from some builds
_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

if _linear is not None and _linear not in flop_registry:  # a torch to come may count it itself

    @register_flop_formula(_linear)
    def _flops(x_shape: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
        return 2 * math.prod(out_shape) * x_shape[-1]


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
    add_product = _by_onednn if _has_onednn(x) else _by_blas
    for clip, outputs in zip(clips, y, strict=True):
        for output, frames in zip(outputs, seen, strict=True):
            total = bias
            for frame in dict.fromkeys(frames):
                which = tuple(tap for tap, other in enumerate(frames) if other == frame)
                if which not in matrices:
                    matrices[which] = (
                        taps[min(which) : max(which) + 1].sum(0) if len(which) > 1 else taps[min(which)]
                    )
                total = add_product(clip[frame], matrices[which], total, output)
            if total is not output:
                output.copy_(total)
    return y.unflatten(2, x.shape[-2:]).permute(0, 4, 1, 2, 3)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Mix the channels at every place, [B, C, ...] with weight [O, C] -> [B, O, ...]; on CPUs faster than a conv."""
    rows = x.movedim(1, -1)
    if _has_onednn(x) and weight.dtype == x.dtype and not torch.is_grad_enabled():
        return _linear(rows, weight, bias, "none", [], "").movedim(-1, 1)
    return F.linear(rows, weight, bias).movedim(-1, 1)


def _has_onednn(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or _linear is None:
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def _by_blas(rows: Tensor, matrix: Tensor, total: Tensor, output: Tensor) -> Tensor:
    """rows [n, C] times the transpose of matrix [O, C], added to a bias [O] or a total [n, O], in `output`."""
    return torch.addmm(total, rows, matrix.t(), out=output)


def _by_onednn(rows: Tensor, matrix: Tensor, total: Tensor, _: Tensor) -> Tensor:
    if total.ndim == 1:
        return _linear(rows, matrix, total, "none", [], "")
    return _linear.binary(rows, total, matrix, None, "add")
