"""The 2.5D building blocks of the temporal autoencoder (paper 3.1.1).

Every 2D convolution is followed by a 1D temporal one and every spatial attention by a temporal one. With
`temporal` switched off a layer is its 2D part alone, so the same module is the image autoencoder that the video
model grows from. Tensors are [B, C, T, H, W]; kept in `channels_last_3d` memory, the per-frame view
[B*T, C, H, W] and the per-pixel view [B, C, T, H*W] are both free.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CACHE_BYTES = 2**20  # what one core keeps close by; 0.5 to 2 MiB were alike


def to_frames(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B*T, C, H, W]."""
    return x.transpose(1, 2).flatten(0, 1)


def from_frames(x: Tensor, num_frames: int) -> Tensor:
    """[B*T, C, H, W] -> [B, C, T, H, W]."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2)


def _phases(weight: Tensor, dim: int) -> list[Tensor]:
    """Kernels of two taps that give the even and odd outputs of a kernel of three on an input repeated twice."""
    first, middle, last = weight.split(1, dim)
    return [torch.cat(taps, dim) for taps in ((first, middle + last), (first + middle, last))]


def conv_of_upsampled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv2d of kernel 3 and padding 1 after nearest-neighbour 2x upsampling: [N, C, H, W] -> [N, O, 2H, 2W].

    Nothing is upsampled: each of the four phases of the output is a convolution of kernel 2, with 16 products in place
    of 36.
    """
    height, width = x.shape[-2:]
    kernels = [kernel for rows in _phases(weight, 2) for kernel in _phases(rows, 3)]
    y = F.conv2d(x, torch.cat(kernels), None if bias is None else bias.repeat(4), padding=1)
    y = y.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))  # [N, H + 1, W + 1, 2, 2, O]
    rows = [torch.stack([y[:, p : p + height, q : q + width, p, q] for q in (0, 1)], 3) for p in (0, 1)]
    return torch.stack(rows, 2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class TemporalConv(nn.Module):
    """1D convolution over time, kernel 3, symmetric replicate padding (not causal); stride 2 maps T to ceil(T/2).

    It starts as the identity (outer taps zero), so that an inflated model equals its image autoencoder on one frame.
    """

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(channels, channels, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, :, 1] = torch.eye(len(self.weight))
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, ceil(T / stride), H, W]."""
        if x.shape[2] == 1:  # all three taps see the one frame
            return pointwise(x, self.weight.sum(2), self.bias)
        return _by_columns(self._convolved, x)

    def _convolved(self, columns: Tensor) -> Tensor:
        return F.conv2d(self._padded(columns), self.weight[..., None], self.bias, stride=(self.stride, 1))

    def of_repeated(self, x: Tensor) -> Tensor:
        """The convolution of every frame given twice, [B, C, T, H, W] -> [B, C, 2 T, H, W]; stride 1 only."""
        return _by_columns(self._convolved_repeated, x)

    def _convolved_repeated(self, columns: Tensor) -> Tensor:
        padded, num_frames = self._padded(columns), columns.shape[2]
        both = [
            F.conv2d(padded[:, :, start : start + num_frames + 1], kernel[..., None], self.bias)
            for start, kernel in enumerate(_phases(self.weight, 2))
        ]
        y = torch.stack([phase.permute(0, 2, 3, 1) for phase in both], 2)  # [B, T, 2, N, C]
        return y.flatten(1, 2).permute(0, 3, 1, 2)

    @staticmethod
    def _padded(columns: Tensor) -> Tensor:
        """First and last frame repeated, [B, C, T, N] -> [B, C, T + 2, N]."""
        if columns.shape[2] == 1:
            return columns.expand(-1, -1, 3, -1)
        # split: slices would cost three sums of gradients
        first, middle, last = columns.split([1, columns.shape[2] - 2, 1], dim=2)
        return torch.cat([first, first, middle, last, last], dim=2)


def _by_columns(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `run`, [B, C, T, N] -> [B, O, T', N], to all places of x [B, C, T, H, W].

    Where no gradient is wanted, a CPU takes as many places at a time as its cache holds: a kernel's taps then lie
    near each other, and the convolution gets half as fast again (experiments/speed/autoencoder).
    """
    columns = x.flatten(3)
    size = max(1, CACHE_BYTES // (columns.element_size() * columns.shape[1] * columns.shape[2]))
    if torch.is_grad_enabled() or x.device.type != "cpu" or size >= columns.shape[3]:
        return run(columns).unflatten(3, x.shape[-2:])
    y: Tensor | None = None
    for start in range(0, columns.shape[3], size):
        part = run(columns[..., start : start + size])
        if y is None:
            batch, channels, frames, _ = part.shape
            y = part.new_empty(batch, frames, columns.shape[3], channels).permute(0, 3, 1, 2)
        y[..., start : start + size] = part
    assert y is not None
    return y.unflatten(3, x.shape[-2:])


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Mix the channels at every place, [B, C, ...] with weight [O, C] -> [B, O, ...]; on CPUs faster than a conv."""
    return F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)


class Conv(nn.Module):
    """2D convolution of each frame, then a temporal one. `stride` 2 halves height and width (LDM's padding)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, temporal_stride: int = 1):
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.spatial = nn.Conv2d(c_in, c_out, kernel, stride, padding)
        self.temporal = TemporalConv(c_out, temporal_stride)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        if self.spatial.kernel_size == (1, 1):
            y = pointwise(x, self.spatial.weight[:, :, 0, 0], self.spatial.bias)
        else:
            frames = to_frames(x)
            if self.spatial.stride[0] == 2:
                frames = F.pad(frames, (0, 1, 0, 1))
            y = from_frames(self.spatial(frames), x.shape[2])
        return self.temporal(y) if temporal else y


class FrameNorm(nn.GroupNorm):
    """Group normalisation of each frame by itself, so that frames far apart in a tile cannot leak."""

    def __init__(self, channels: int):
        super().__init__(min(32, channels // 4), channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (it renames `input`)
        return from_frames(super().forward(to_frames(x)), x.shape[2])


class ResBlock(nn.Module):
    """Two normalised convolutions around a skip connection."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.norm1, self.conv1 = FrameNorm(c_in), Conv(c_in, c_out)
        self.norm2, self.conv2 = FrameNorm(c_out), Conv(c_out, c_out)
        self.skip = Conv(c_in, c_out, kernel=1) if c_in != c_out else None

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)), temporal)
        h = self.conv2(F.silu(self.norm2(h)), temporal)
        return h + (x if self.skip is None else self.skip(x, temporal))


class AxisAttention(nn.Module):
    """Single-head residual self-attention over the middle axis of [N, S, C]."""

    def __init__(self, channels: int, zero_init: bool):
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        if zero_init:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])


class Attention(nn.Module):
    """Spatial attention inside each frame, then temporal attention at each site (starts as the identity)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.spatial = FrameNorm(channels), AxisAttention(channels, zero_init=False)
        self.temporal_norm = FrameNorm(channels)
        self.temporal = AxisAttention(channels, zero_init=True)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        _, _, num_frames, height, width = x.shape
        sites = to_frames(self.norm(x)).flatten(2).transpose(1, 2)  # [B*T, H*W, C]
        y = self.spatial(sites).transpose(1, 2).unflatten(2, (height, width))
        x = x + from_frames(y, num_frames)
        if not temporal:
            return x
        times = self.temporal_norm(x).permute(0, 3, 4, 2, 1)  # [B, H, W, T, C]
        y = self.temporal(times.flatten(0, 2)).view(*times.shape)
        return x + y.permute(0, 4, 3, 1, 2)


class Down(nn.Module):
    """Halve height and width, and time where `temporal_stride` is 2."""

    def __init__(self, channels: int, temporal_stride: int):
        super().__init__()
        self.conv = Conv(channels, channels, stride=2, temporal_stride=temporal_stride)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        return self.conv(x, temporal)


class Up(nn.Module):
    """Double height and width by nearest neighbour then convolution; time likewise where `temporal_scale` is 2."""

    def __init__(self, c_in: int, c_out: int, temporal_scale: int):
        super().__init__()
        self.temporal_scale = temporal_scale
        self.conv = Conv(c_in, c_out)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        spatial = self.conv.spatial
        y = from_frames(conv_of_upsampled(to_frames(x), spatial.weight, spatial.bias), x.shape[2])
        if not temporal:
            return y
        return self.conv.temporal.of_repeated(y) if self.temporal_scale == 2 else self.conv.temporal(y)
