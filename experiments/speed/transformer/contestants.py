"""Two transformer blocks of ours and of the public video models, with random weights, at one width and sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from diffusers.models.transformers.transformer_ltx import LTXVideoRotaryPosEmbed, LTXVideoTransformerBlock
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformerBlock
from torch import Tensor, nn

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.positions import Positions
from moviegen.backbone.transformer import Block, Conditions
from moviegen.types import Grid

LAYERS = 2


@dataclass(frozen=True)
class Shape:
    """What all blocks are given: the sizes of one sample."""

    dim: int
    grid: Grid
    num_text_tokens: int


@dataclass(frozen=True)
class Model:
    """Blocks on the bench: `forward` takes the tokens [1, S, D] and the text [1, L, D] that the bench made."""

    name: str
    blocks: nn.Module
    forward: Callable[[Tensor, Tensor], Tensor]


def ours(shape: Shape, qk_norm: bool = True, attention: str = "auto") -> Model:
    """Our block: head size 128, feed-forward 8/3 of the width, positions added and the text masked at every layer."""
    config = BackboneConfig(
        dim=shape.dim,
        num_layers=LAYERS,
        num_heads=shape.dim // 128,
        ffn_dim=shape.dim * 8 // 3,
        qk_norm=qk_norm,
        attention=attention,
    )
    blocks = nn.ModuleList(Block(config) for _ in range(LAYERS))
    positions = Positions(shape.dim, shape.grid.frames, shape.grid.height, shape.grid.width)(
        shape.grid
    ).detach()
    modulation = torch.randn(1, 6, shape.dim)

    def forward(x: Tensor, text: Tensor) -> Tensor:
        conditions = Conditions(shape.grid, text, torch.ones(text.shape[:2], dtype=torch.bool))
        for block in blocks:
            x = block(x, positions, modulation, conditions)
        return x

    return Model("ours", blocks, forward)


def wan(shape: Shape) -> Model:
    """Wan 2.1, 1.3B: head size 128, feed-forward 35/6 of the width, rotary positions."""
    heads = shape.dim // 128
    blocks = nn.ModuleList(
        WanTransformerBlock(shape.dim, shape.dim * 35 // 6, heads, cross_attn_norm=True)
        for _ in range(LAYERS)
    )
    size = (shape.grid.frames, shape.grid.height, shape.grid.width)
    rotary = WanRotaryPosEmbed(128, (1, 1, 1), 1024)(torch.zeros(1, 1, *size))
    modulation = torch.randn(1, 6, shape.dim)

    def forward(x: Tensor, text: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, text, modulation, rotary)
        return x

    return Model("wan", blocks, forward)


def ltx(shape: Shape) -> Model:
    """LTX-Video: head size 64, feed-forward four times the width, rotary positions."""
    heads = shape.dim // 64
    blocks = nn.ModuleList(LTXVideoTransformerBlock(shape.dim, heads, 64, shape.dim) for _ in range(LAYERS))
    rotary_positions = LTXVideoRotaryPosEmbed(shape.dim)
    size = (shape.grid.frames, shape.grid.height, shape.grid.width)
    rotary = rotary_positions(torch.zeros(1, 1, shape.dim), *size, rope_interpolation_scale=(1.0, 32.0, 32.0))
    modulation = torch.randn(1, 1, 6 * shape.dim)

    def forward(x: Tensor, text: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, text, modulation, rotary)
        return x

    return Model("ltx", blocks, forward)


def cogvideox(shape: Shape) -> Model:
    """CogVideoX: head size 64, feed-forward four times the width, video and text in one sequence."""
    blocks = nn.ModuleList(CogVideoXBlock(shape.dim, shape.dim // 64, 64, 512) for _ in range(LAYERS))
    time = torch.randn(1, 512)

    def forward(x: Tensor, text: Tensor) -> Tensor:
        for block in blocks:
            x, text = block(x, text, time)
        return x

    return Model("cogvideox", blocks, forward)


BUILDERS: dict[str, Callable[[Shape], Model]] = {"wan": wan, "ltx": ltx, "cogvideox": cogvideox}
