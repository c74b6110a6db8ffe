"""Sizes of the flow transformer (paper Table 1 and 3.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# of attention: see attention.py, which this module does not import because plans of runs do without torch
BACKENDS = (
    *("auto", "eager", "sdpa", "sdpa_math", "sdpa_flash", "sdpa_efficient", "sdpa_cudnn"),
    *("flash2", "flash3", "flash4", "xformers", "flex", "varlen", "segments"),
)


@dataclass(frozen=True)
class BackboneConfig:
    """Width, depth and maximal grid of a backbone.

    `max_frames`, `max_height` and `max_width` bound the token grid (after patching), not pixels.
    """

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    latent_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)  # frames, height, width
    max_frames: int = 32
    max_height: int = 64
    max_width: int = 64
    concat_channels: int = 0  # latent channels that `concat` conditions add to the input
    gated: bool = False  # a second cross-attention, behind gates that start at zero, for `gated` conditions
    qk_norm: bool = False
    attention: str = "auto"  # one of BACKENDS
    # "dit" is the other arm of the paper's Table 8c: LayerNorm, a plain SiLU network, biases (its Table 9)
    block: Literal["llama", "dit"] = "llama"

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.block not in ("llama", "dit"):
            raise ValueError(f"block must be llama or dit, got {self.block!r}")
        if self.attention not in BACKENDS:
            raise ValueError(f"attention must be one of {', '.join(BACKENDS)}, got {self.attention!r}")

    @property
    def token_channels(self) -> int:
        """Channels of one token: a patch of latent sites."""
        frames, height, width = self.patch
        return self.latent_channels * frames * height * width

    @property
    def input_channels(self) -> int:
        """Channels that one token enters with: its own and those of `concat` conditions."""
        return self.token_channels // self.latent_channels * (self.latent_channels + self.concat_channels)
