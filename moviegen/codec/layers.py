"""The building blocks of the temporal autoencoder, 2.5D and, for the paper's ablation, full 3D (paper 3.1.1).

2.5D: every 2D convolution is followed by a 1D temporal one and every spatial attention by a temporal one. Full 3D:
both look at space and time at once. With `temporal` switched off a layer of either kind is its 2D part alone, so the
same module is the image autoencoder that the video model grows from. Tensors are [B, C, T, H, W]; kept in
`channels_last_3d` memory, the per-frame view [B*T, C, H, W] and the per-pixel view [B, C, T, H*W] are both free.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.codec.frame_sums import pointwise, sums_of_frames, tap_order


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
    phases = [[y[:, p : p + height, q : q + width, p, q] for q in (0, 1)] for p in (0, 1)]
    if torch.is_grad_enabled():
        joined = torch.stack([torch.stack(row, 3) for row in phases], 2)
    else:  # each phase to its place at once: two stacks would copy everything twice
        joined = y.new_empty(len(y), height, 2, width, 2, y.shape[-1])
        for p, row in enumerate(phases):
            for q, phase in enumerate(row):
                joined[:, :, p, :, q] = phase
    return joined.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


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
        last = x.shape[2] - 1
        if _as_products(x):
            seen = [(max(t - 1, 0), t, min(t + 1, last)) for t in range(0, last + 1, self.stride)]
            return sums_of_frames(x, self.weight, self.bias, seen)
        if last == 0:  # all three taps see the one frame
            return pointwise(x, self.weight.sum(2), self.bias)
        padded = self._padded(x.flatten(3))
        y = F.conv2d(padded, self.weight[..., None], self.bias, stride=(self.stride, 1))
        return y.unflatten(3, x.shape[-2:])

    def of_repeated(self, x: Tensor) -> Tensor:
        """The convolution of every frame given twice, [B, C, T, H, W] -> [B, C, 2 T, H, W]; stride 1 only."""
        num_frames = x.shape[2]
        if _as_products(x):
            last = num_frames - 1
            seen = [(max(t - 1, 0) // 2, t // 2, min((t + 1) // 2, last)) for t in range(2 * num_frames)]
            return sums_of_frames(x, self.weight, self.bias, seen)
        padded = self._padded(x.flatten(3))
        both = [
            F.conv2d(padded[:, :, start : start + num_frames + 1], kernel[..., None], self.bias)
            for start, kernel in enumerate(_phases(self.weight, 2))
        ]
        y = torch.stack([phase.permute(0, 2, 3, 1) for phase in both], 2)  # [B, T, 2, N, C]
        return y.flatten(1, 2).permute(0, 3, 1, 2).unflatten(3, x.shape[-2:])

    @staticmethod
    def _padded(columns: Tensor) -> Tensor:
        """First and last frame repeated, [B, C, T, N] -> [B, C, T + 2, N]."""
        if columns.shape[2] == 1:
            return columns.expand(-1, -1, 3, -1)
        # split: slices would cost three sums of gradients
        first, middle, last = columns.split([1, columns.shape[2] - 2, 1], dim=2)
        return torch.cat([first, first, middle, last, last], dim=2)


def _as_products(x: Tensor) -> bool:
    """Where no gradient is wanted a CPU mixes frames by matrix products, which need no padded copy."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


class Conv(nn.Module):
    """2D convolution of each frame, then a temporal one. `stride` 2 halves height and width (LDM's padding)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, temporal_stride: int = 1):
        super().__init__()
        self.spatial = _spatial(c_in, c_out, kernel, stride)
        self.temporal = TemporalConv(c_out, temporal_stride)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        y = _by_frame(self.spatial, x)
        return self.temporal(y) if temporal else y

    def upsampled(self, x: Tensor, temporal: bool, temporal_scale: int) -> Tensor:
        """The same after nearest-neighbour upsampling, [B, C, T, H, W] -> [B, C', T * temporal_scale, 2H, 2W]."""
        y = from_frames(conv_of_upsampled(to_frames(x), self.spatial.weight, self.spatial.bias), x.shape[2])
        if not temporal:
            return y
        return self.temporal.of_repeated(y) if temporal_scale == 2 else self.temporal(y)


class FullConv(nn.Module):
    """3D convolution with symmetric replicate padding in time: its middle tap is `spatial`, so an image model fits in.

    The outer taps start at zero: an inflated model equals its image autoencoder on one frame, as with `Conv`. A kernel
    of one pixel is of one frame too.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, temporal_stride: int = 1):
        super().__init__()
        self.spatial = _spatial(c_in, c_out, kernel, stride)
        assert kernel > 1 or temporal_stride == 1
        self.temporal_stride = temporal_stride
        self.outer = nn.Parameter(torch.zeros(c_out, c_in, 2, kernel, kernel)) if kernel > 1 else None

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        if not temporal or self.outer is None:
            return _by_frame(self.spatial, x)
        weight = torch.stack([self.outer[:, :, 0], self.spatial.weight, self.outer[:, :, 1]], dim=2)
        stride, padding = self.spatial.stride[0], int(self.spatial.padding[0])
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        if stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        strides = (self.temporal_stride, stride, stride)
        return F.conv3d(x, weight, self.spatial.bias, strides, (0, padding, padding))

    def upsampled(self, x: Tensor, temporal: bool, temporal_scale: int) -> Tensor:
        """The same after nearest-neighbour upsampling, [B, C, T, H, W] -> [B, C', T * temporal_scale, 2H, 2W]."""
        larger = from_frames(F.interpolate(to_frames(x), scale_factor=2.0, mode="nearest"), x.shape[2])
        return self(repeat_frames(larger, temporal_scale) if temporal else larger, temporal)


def conv_class(full_3d: bool) -> type[Conv] | type[FullConv]:
    """The convolution of a variant; both take the same arguments."""
    return FullConv if full_3d else Conv


def _spatial(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0)


def _by_frame(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The 2D convolution of each frame; with stride 2 one row and one column are added at the far edges."""
    if conv.kernel_size == (1, 1):
        return pointwise(x, conv.weight[:, :, 0, 0], conv.bias)
    frames = to_frames(x)
    if conv.stride[0] == 2:
        frames = F.pad(frames, (0, 1, 0, 1))
    return from_frames(conv(frames), x.shape[2])


def repeat_frames(x: Tensor, times: int) -> Tensor:
    """[B, C, T, H, W] -> [B, C, T * times, H, W]; `repeat_interleave` would lose the channels-last memory."""
    if times == 1:
        return x
    sites = x.permute(0, 2, 3, 4, 1).unsqueeze(2)  # [B, T, 1, H, W, C]
    return sites.expand(-1, -1, times, -1, -1, -1).flatten(1, 2).permute(0, 4, 1, 2, 3)


class FrameNorm(nn.GroupNorm):
    """Group normalisation of each frame by itself, so that frames far apart in a tile cannot leak."""

    def __init__(self, channels: int):
        super().__init__(min(32, channels // 4), channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (it renames `input`)
        return from_frames(super().forward(to_frames(x)), x.shape[2])

    def activated(self, x: Tensor) -> Tensor:
        """Normalised, then SiLU; in place where no gradient is wanted."""
        return F.silu(self(x), inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """Two normalised convolutions around a skip connection."""

    def __init__(self, c_in: int, c_out: int, full_3d: bool = False):
        super().__init__()
        conv = conv_class(full_3d)
        self.norm1, self.conv1 = FrameNorm(c_in), conv(c_in, c_out)
        self.norm2, self.conv2 = FrameNorm(c_out), conv(c_out, c_out)
        self.skip = conv(c_in, c_out, kernel=1) if c_in != c_out else None

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        h = self.conv1(self.norm1.activated(x), temporal)
        h = self.conv2(self.norm2.activated(h), temporal)
        skipped = x if self.skip is None else self.skip(x, temporal)
        fresh = not torch.is_grad_enabled() and h.dtype == skipped.dtype
        return h.add_(skipped) if fresh else h + skipped


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
    """Spatial attention inside each frame, then temporal attention at each site (starts as the identity).

    With `full_3d` the one attention spans all sites of all frames in place of both; on one frame it is the spatial one.
    """

    def __init__(self, channels: int, full_3d: bool = False):
        super().__init__()
        self.full_3d = full_3d
        self.norm, self.spatial = FrameNorm(channels), AxisAttention(channels, zero_init=False)
        if not full_3d:
            self.temporal_norm = FrameNorm(channels)
            self.temporal = AxisAttention(channels, zero_init=True)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        h = self.norm(x).permute(0, 2, 3, 4, 1)  # [B, T, H, W, C]
        sites = h.flatten(1, 3) if temporal and self.full_3d else h.flatten(2, 3).flatten(0, 1)
        x = x + self.spatial(sites).view(h.shape).permute(0, 4, 1, 2, 3)
        if not temporal or self.full_3d:
            return x
        times = self.temporal_norm(x).permute(0, 3, 4, 2, 1)  # [B, H, W, T, C]
        y = self.temporal(times.flatten(0, 2)).view(*times.shape)
        return x + y.permute(0, 4, 3, 1, 2)


class Down(nn.Module):
    """Halve height and width, and time where `temporal_stride` is 2."""

    def __init__(self, channels: int, temporal_stride: int, full_3d: bool = False):
        super().__init__()
        self.conv = conv_class(full_3d)(channels, channels, stride=2, temporal_stride=temporal_stride)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        return self.conv(x, temporal)


class Up(nn.Module):
    """Double height and width by nearest neighbour then convolution; time likewise where `temporal_scale` is 2."""

    def __init__(self, c_in: int, c_out: int, temporal_scale: int, full_3d: bool = False):
        super().__init__()
        self.temporal_scale = temporal_scale
        self.conv = conv_class(full_3d)(c_in, c_out)

    def forward(self, x: Tensor, temporal: bool) -> Tensor:
        return self.conv.upsampled(x, temporal, self.temporal_scale)


@torch.no_grad()
def lay_out_for_inference(module: nn.Module) -> None:
    """Keep the weights of convolutions in the order in memory that the kernels read: same values, no copy at each call.

    In place. Not for training in shards, which take contiguous parameters only.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.contiguous(memory_format=torch.channels_last)
        elif isinstance(part, TemporalConv):
            part.weight.data = tap_order(part.weight).permute(1, 2, 0)
