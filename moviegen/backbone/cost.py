"""What one sample costs a backbone to train, by its number of tokens: the balance between buckets of several sizes."""

from __future__ import annotations

from moviegen.backbone.config import BackboneConfig
from moviegen.types import Grid


def sample_cost(config: BackboneConfig, num_tokens: int) -> float:
    """Multiplications of one forward pass over `num_tokens` tokens, in those of one token's linear layers.

    Linear layers cost 6 d^2 + 3 d f a token (self-attention 4, cross-attention 2, SwiGLU 3) and attention 2 d a pair of
    tokens, so the cost is n + n^2 / parity with parity = 3 d + 1.5 f tokens: 43,008 for the 30B model, where attention
    costs as much as all linear layers. Text tokens are left out.
    """
    parity = 3 * config.dim + 1.5 * config.ffn_dim
    return num_tokens * (1 + num_tokens / parity)


def token_grid(config: BackboneConfig, latent: Grid) -> Grid:
    """Tokens of a latent; raises ValueError where it does not divide into patches or exceeds the positions."""
    cells = (latent.frames, latent.height, latent.width)
    if any(n % p for n, p in zip(cells, config.patch, strict=True)):
        raise ValueError(f"latent of {cells} cells does not divide into patches of {tuple(config.patch)}")
    sizes = [n // p for n, p in zip(cells, config.patch, strict=True)]
    limits = [config.max_frames, config.max_height, config.max_width]
    if any(n > limit for n, limit in zip(sizes, limits, strict=True)):
        raise ValueError(f"token grid {sizes} exceeds the learned positions {limits} (frames, height, width)")
    return Grid(*sizes)
