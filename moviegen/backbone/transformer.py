"""The flow transformer: one backbone for every generator; models differ by configuration and conditions.

It reads noisy tokens, the time step and conditions through four ports, and answers the velocity. It knows no
text, no camera and no parallelism: `Whole` is the seam where moviegen.parallel puts another in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.layers import (
    CrossAttention,
    SelfAttention,
    TimeEmbedding,
    feed_forward,
    modulate,
    norm,
)
from moviegen.backbone.packing import Packing
from moviegen.backbone.positions import Positions
from moviegen.types import Grid, Movable


@dataclass(frozen=True)
class Conditions(Movable):
    """What a backbone is told besides the noisy tokens."""

    grid: Grid | Packing  # token grid: S = grid.num_tokens; of a packed sequence, the grid of each group
    context: Tensor  # [B, L, D] read by cross-attention
    context_mask: Tensor  # [B, L] bool, True where a context token counts
    gated: Tensor | None = None  # [B, M, D] read by a second cross-attention behind gates
    gated_mask: Tensor | None = None  # [B, M] bool
    concat: Tensor | None = None  # [B, S, C] joined to the tokens on channels
    aligned: Tensor | None = None  # [B, S, D] added token by token
    pooled: Tensor | None = None  # [B, D] added to the time embedding
    first_frame: Tensor | None = (
        None  # [B] int64: where in time a sample of one latent frame stands; at 0 where None
    )

    def attend(self, layer: nn.Module, tokens: Tensor, *by_sample: Tensor) -> Tensor:
        """An attention layer over the tokens of each sample; packed samples do not see each other."""
        if isinstance(self.grid, Packing):
            return self.grid.attend(layer, tokens, *by_sample)
        return layer(tokens, *by_sample)


class Whole:
    """Where the tokens between a backbone's ends lie: all of them here."""

    def split(self, tokens: Tensor) -> Tensor:
        """All tokens [..., S, D] -> those of this process."""
        return tokens

    def join(self, tokens: Tensor) -> Tensor:
        """Inverse of `split`."""
        return tokens

    def shared(self, value: Tensor) -> Tensor:
        """What holds for all tokens, as those of this process take it."""
        return value


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; adaLN shared by all layers plus a table of its own.

    `gated` tokens are read by the same cross-attention in a softmax of their own, so that those of the text keep their
    weights; a gate of zero leaves out what they say.
    """

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.attn_norm, self.self_attn = norm(config), SelfAttention(config)
        self.cross_norm, self.cross_attn = norm(config), CrossAttention(config)
        self.ffn_norm, self.ffn = norm(config), feed_forward(config)
        self.table = nn.Parameter(torch.zeros(6, config.dim))
        self.gate = nn.Parameter(torch.zeros(config.dim)) if config.gated else None

    def forward(
        self, x_BSD: Tensor, positions_SD: Tensor, modulation_B6D: Tensor, conditions: Conditions
    ) -> Tensor:
        modulation = (modulation_B6D + self.table).to(x_BSD.dtype)
        scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = modulation.unbind(dim=1)
        x_BSD = x_BSD + positions_SD
        h_BSD = conditions.attend(self.self_attn, modulate(self.attn_norm(x_BSD), scale_a, shift_a))
        x_BSD = x_BSD + gate_a[:, None] * h_BSD
        if conditions.context.shape[1]:  # a model without any text has nothing to attend to
            x_BSD = x_BSD + conditions.attend(
                self.cross_attn, self.cross_norm(x_BSD), conditions.context, conditions.context_mask
            )
        gated, gated_mask = conditions.gated, conditions.gated_mask
        if self.gate is not None and gated is not None and gated_mask is not None:
            h_BSD = conditions.attend(self.cross_attn, self.cross_norm(x_BSD), gated, gated_mask)
            x_BSD = x_BSD + self.gate.to(h_BSD.dtype) * h_BSD
        h_BSD = self.ffn(modulate(self.ffn_norm(x_BSD), scale_f, shift_f))
        return x_BSD + gate_f[:, None] * h_BSD


class Backbone(nn.Module):
    """Velocity of noisy tokens under conditions: (x_t [B, S, C], t [B], Conditions) -> [B, S, C]."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.input_channels, config.dim)
        self.positions = Positions(config.dim, config.max_frames, config.max_height, config.max_width)
        self.time = TimeEmbedding(config.dim)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.out_norm = norm(config)
        self.out_table = nn.Parameter(torch.zeros(2, config.dim))
        self.out = nn.Linear(config.dim, config.token_channels)
        self.tokens = Whole()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gates, modulation, cross-attention outputs and the output start at zero: every block starts as identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, CrossAttention):
                nn.init.zeros_(module.wo.weight)
        nn.init.zeros_(self.modulation[1].get_parameter("weight"))
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BSC: Tensor, t_B: Tensor, conditions: Conditions) -> Tensor:
        grid = conditions.grid
        num_tokens = x_BSC.shape[0 if isinstance(grid, Packing) else 1]  # packed, x is [S, 1, C]
        if num_tokens != grid.num_tokens:
            raise ValueError(f"{num_tokens} tokens do not fill the grid {grid}")
        if conditions.gated is not None and not self.config.gated:
            raise ValueError("gated conditions need backbone.config.gated=true")
        if conditions.concat is not None:
            x_BSC = torch.cat([x_BSC, conditions.concat], dim=-1)
        x_BSD = self.embed(x_BSC)
        if conditions.aligned is not None:
            x_BSD = x_BSD + conditions.aligned
        time_BD = self.time(t_B)
        if conditions.pooled is not None:
            time_BD = time_BD + conditions.pooled
        modulation_B6D = self.modulation(time_BD).unflatten(1, (6, -1))
        if isinstance(grid, Packing):  # each token has the time of its sample
            time_BD, modulation_B6D = grid.spread(time_BD), grid.spread(modulation_B6D)
            positions_SD = grid.positions(self.positions, conditions.first_frame)
        else:
            positions_SD = self.positions(grid, conditions.first_frame)
        x_BSD, positions_SD = self.tokens.split(x_BSD), self.tokens.split(positions_SD)
        modulation_B6D = self.tokens.shared(modulation_B6D)
        for block in self.blocks:
            x_BSD = block(x_BSD, positions_SD, modulation_B6D, conditions)
        modulation_B2D = self.tokens.shared(time_BD[:, None] + self.out_table)
        scale_BD, shift_BD = modulation_B2D.to(x_BSD.dtype).unbind(dim=1)
        return self.tokens.join(self.out(modulate(self.out_norm(x_BSD), scale_BD, shift_BD)))
