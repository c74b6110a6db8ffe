"""What a backbone costs, counted from its configuration: parameters of its blocks, tokens and operations of a sample.

A multiplication and its addition count as two operations, as everywhere. Norms, modulation and softmax are left out:
they are below a thousandth of the matrix products at the paper's sizes.
"""

from __future__ import annotations

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.layers import TIME_FREQUENCIES
from moviegen.backbone.patchify import patched
from moviegen.types import Grid


def block_parameters(config: BackboneConfig) -> int:
    """Weights of the matrices in all blocks, the way the paper's model sizes count (its table 1).

    Per layer four of self-attention, four of cross-attention and three of the feed-forward network, two in a DiT block.
    """
    return config.num_layers * (8 * config.dim**2 + _feed_forward(config))


def _feed_forward(config: BackboneConfig) -> int:
    """Weights of the matrices of one feed-forward network."""
    return (2 if config.block == "dit" else 3) * config.dim * config.ffn_dim


def token_grid(config: BackboneConfig, latent: Grid) -> Grid:
    """Tokens of a latent; raises ValueError where it does not divide into patches or exceeds the positions."""
    grid = patched((latent.frames, latent.height, latent.width), config.patch)
    sizes = [grid.frames, grid.height, grid.width]
    limits = [config.max_frames, config.max_height, config.max_width]
    if any(n > limit for n, limit in zip(sizes, limits, strict=True)):
        raise ValueError(f"token grid {sizes} exceeds the learned positions {limits} (frames, height, width)")
    return grid


def forward_flops(config: BackboneConfig, num_tokens: int, num_text_tokens: int = 0) -> int:
    """Operations of one evaluation of one sample: `num_tokens` of video that read `num_text_tokens`.

    A training step takes three times as many: two products in the backward pass for each of the forward one.
    """
    dim, tokens, text = config.dim, num_tokens, num_text_tokens
    weights = 2 * tokens * (6 * dim**2 + _feed_forward(config))  # self, q and out of cross, feed-forward
    context = 2 * text * 2 * dim**2  # keys and values of the text
    scores = 4 * tokens * (tokens + text) * dim  # q k and p v of both attentions
    inputs = config.input_channels
    ends = 2 * tokens * dim * (inputs + config.token_channels)
    time = 2 * dim * (TIME_FREQUENCIES + dim + 6 * dim)  # embedding of the time step, shared modulation
    return config.num_layers * (weights + context + scores) + ends + time
