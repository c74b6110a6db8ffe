"""A transformer as a planner sees it: what its matrices, its attention and the rest of a block cost.

A multiplication and its addition count as two operations. `backbone_shape` describes this project's generator,
`Transformer` alone any Llama- or GPT-like model, from its layer count and widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.backbone.config import BackboneConfig


@dataclass(frozen=True)
class Passes:
    """Reads and writes of elementwise operations of one block's forward pass, in tensors of width dim and of ffn_dim.

    Counted from the operations: each reads its inputs and writes its output once, unless a compiler fuses them.
    """

    dim: float
    ffn_dim: float


# This project's block: three norms of one kernel each, two modulations, positions, two gates, three residual sums.
BACKBONE_EAGER, BACKBONE_FUSED = Passes(34, 5), Passes(14, 3)
# Llama's: two norms (of several kernels each where they are not fused), rotary positions, two residual sums.
LLAMA_EAGER, LLAMA_FUSED = Passes(56, 5), Passes(13, 3)


@dataclass(frozen=True)
class Transformer:
    """Sizes of a transformer; only blocks are repeated.

    Args:
        kv_heads: heads of keys and values; 0 means as many as `num_heads`.
        ffn_matrices: three of a gated feed-forward network, two of a plain one.
        cross: every block also attends to a context (text).
        causal: a token sees only those before it, so half of the scores are never computed.
        vocabulary: tokens that the input and the output know; 0 for a model of latents.
        other_parameters: weights outside the blocks that are not of the vocabulary.
        end_products: multiply-adds per token outside the blocks, without the vocabulary's.
    """

    num_layers: int
    dim: int
    ffn_dim: int
    num_heads: int
    kv_heads: int = 0
    ffn_matrices: int = 3
    cross: bool = False
    causal: bool = False
    vocabulary: int = 0
    tied: bool = False
    other_parameters: int = 0
    block_vectors: int = 0
    end_products: int = 0
    eager: Passes = LLAMA_EAGER
    fused: Passes = LLAMA_FUSED

    @property
    def kv_share(self) -> float:
        """Width of keys (and of values) over that of queries."""
        return (self.kv_heads or self.num_heads) / self.num_heads

    @property
    def block_parameters(self) -> int:
        """Weights of one block."""
        attention = round(self.dim**2 * (2 + 2 * self.kv_share)) + (4 * self.dim**2 if self.cross else 0)
        return attention + self.ffn_matrices * self.dim * self.ffn_dim + self.block_vectors

    @property
    def end_parameters(self) -> int:
        """Weights outside the blocks."""
        return (1 if self.tied else 2) * self.vocabulary * self.dim + self.other_parameters

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.num_layers * self.block_parameters + self.end_parameters

    def block_products(self, tokens: int, context: int = 0) -> float:
        """Operations of the matrix products of one block's forward pass over one sample."""
        own = self.dim**2 * (2 + 2 * self.kv_share) + (2 * self.dim**2 if self.cross else 0)
        feed_forward = self.ffn_matrices * self.dim * self.ffn_dim
        return 2 * tokens * (own + feed_forward) + (4 * context * self.dim**2 if self.cross else 0)

    def block_attention(self, tokens: int, context: int = 0) -> float:
        """Operations of the attentions (scores and sums of values) of one block's forward pass over one sample."""
        own = 4 * tokens**2 * self.dim * (0.5 if self.causal else 1)
        return own + (4 * tokens * context * self.dim if self.cross else 0)

    def end_operations(self, tokens: int) -> float:
        """Operations outside the blocks: the output (and the input of latents)."""
        return 2 * tokens * (self.vocabulary * self.dim + self.end_products)

    def forward_flops(self, tokens: int, context: int = 0) -> float:
        """Operations of one sample's forward pass; a training step takes three times as many."""
        block = self.block_products(tokens, context) + self.block_attention(tokens, context)
        return self.num_layers * block + self.end_operations(tokens)


def backbone_shape(config: BackboneConfig) -> Transformer:
    """This project's generator."""
    dit = config.block == "dit"
    norms = (
        3 * config.dim * (2 if dit else 1)
        + 6 * config.dim
        + (4 * config.dim // config.num_heads) * config.qk_norm
    )
    biases = 9 * config.dim + config.ffn_dim if dit else 0
    positions = config.max_frames + config.max_height + config.max_width
    time = 256 * config.dim + config.dim**2 + 2 * config.dim  # its 256 frequencies: layers.TIME_FREQUENCIES
    modulation = 6 * config.dim**2 + 6 * config.dim
    ends = (config.input_channels + 1) * config.dim + (config.dim + 1) * config.token_channels
    final = (2 if dit else 1) * config.dim + 2 * config.dim
    return Transformer(
        num_layers=config.num_layers,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        num_heads=config.num_heads,
        ffn_matrices=2 if dit else 3,
        cross=True,
        other_parameters=positions * config.dim + time + modulation + ends + final,
        block_vectors=norms + biases,
        end_products=config.dim * (config.input_channels + config.token_channels),
        eager=BACKBONE_EAGER,
        fused=BACKBONE_FUSED,
    )
