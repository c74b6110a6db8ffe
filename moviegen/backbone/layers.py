"""Layers of the flow transformer: Llama 3 style, no biases, full attention (paper 3.1.2).

Legend: B batch, S tokens, L context tokens, N heads, K head size, D model width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.backbone.attention import attend
from moviegen.backbone.config import BackboneConfig

TIME_FREQUENCIES = 256  # of the sinusoids of the time step, as in DiT


def modulate(x_BSD: Tensor, scale_BD: Tensor, shift_BD: Tensor) -> Tensor:
    """Adaptive normalisation: scale and shift each channel by what the time step asks for."""
    return x_BSD * (1 + scale_BD[:, None]) + shift_BD[:, None]


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm whose weight follows the input's precision, as fused kernels want it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Softmax attention without weights: a part of its own, so that parallelism can put another in its place."""

    def __init__(self, backend: str):
        super().__init__()
        self.backend = backend

    def forward(self, q_BNSK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask: Tensor | None = None) -> Tensor:
        return attend(q_BNSK, k_BNLK, v_BNLK, mask, self.backend)


class SelfAttention(nn.Module):
    """Full bidirectional multi-head attention over all tokens of a clip."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.attention = Attention(config.attention)
        bias = config.block == "dit"
        self.wq = nn.Linear(config.dim, config.dim, bias=bias)
        self.wk = nn.Linear(config.dim, config.dim, bias=bias)
        self.wv = nn.Linear(config.dim, config.dim, bias=bias)
        self.wo = nn.Linear(config.dim, config.dim, bias=bias)
        self.head_dim = config.dim // config.num_heads
        self.q_norm = RMSNorm(self.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim) if config.qk_norm else nn.Identity()

    def _heads(self, x_BSD: Tensor) -> Tensor:
        """[B, S, D] -> [B, N, S, K]; of the heads, a process may have only some."""
        return x_BSD.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x_BSD: Tensor) -> Tensor:
        q_BNSK = self.q_norm(self._heads(self.wq(x_BSD)))
        k_BNSK = self.k_norm(self._heads(self.wk(x_BSD)))
        v_BNSK = self._heads(self.wv(x_BSD))
        out_BNSK = self.attention(q_BNSK, k_BNSK, v_BNSK)
        return self.wo(out_BNSK.transpose(1, 2).flatten(2))


class CrossAttention(SelfAttention):
    """Attention of video tokens over context tokens. A sample with no context left gets exactly zero."""

    def forward(self, x_BSD: Tensor, context_BLD: Tensor, mask_BL: Tensor) -> Tensor:  # type: ignore[override]
        q_BNSK = self.q_norm(self._heads(self.wq(x_BSD)))
        k_BNLK = self.k_norm(self._heads(self.wk(context_BLD)))
        v_BNLK = self._heads(self.wv(context_BLD))
        present_B11 = mask_BL.any(dim=1)[:, None, None]
        mask_B11L = (mask_BL | ~present_B11[:, 0])[:, None, None]  # softmax over nothing would be NaN
        out_BNSK = self.attention(q_BNSK, k_BNLK, v_BNLK, mask_B11L)
        return self.wo(out_BNSK.transpose(1, 2).flatten(2)) * present_B11


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BSD)) * self.w3(x_BSD))


class PlainFeedForward(nn.Module):
    """The feed-forward network of the DiT block: w2(silu(w1 x)), with biases."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(hidden, dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BSD)))


def norm(config: BackboneConfig) -> nn.Module:
    """The norm of a backbone's blocks, over the model width."""
    return nn.LayerNorm(config.dim) if config.block == "dit" else RMSNorm(config.dim)


def feed_forward(config: BackboneConfig) -> nn.Module:
    """The feed-forward network of a backbone's blocks."""
    kind = PlainFeedForward if config.block == "dit" else FeedForward
    return kind(config.dim, config.ffn_dim)


class TimeEmbedding(nn.Module):
    """Sinusoids of the time step and a small network: t [B] in [0, 1] -> [B, D]."""

    def __init__(self, dim: int, num_frequencies: int = TIME_FREQUENCIES):
        super().__init__()
        self.num_frequencies = num_frequencies
        self.net = nn.Sequential(nn.Linear(num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = self.num_frequencies // 2
        steps = torch.arange(half, device=t.device, dtype=torch.float32)
        angles = 1000 * t.float()[:, None] * torch.exp(-math.log(10_000) * steps / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.net(waves.to(next(self.net.parameters()).dtype))
